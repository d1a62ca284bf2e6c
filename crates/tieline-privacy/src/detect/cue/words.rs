//! The words, by what they tell.

use super::{Cue, State};

/// All words with what they tell.
pub(super) fn all() -> impl Iterator<Item = (Cue, &'static str)> {
    WORDS.iter().flat_map(|(cue, words)| words.split('|').map(|word| (*cue, word)))
}

/// Words are parted by `|`. Small ASCII letters stand for great ones too.
const WORDS: &[(Cue, &str)] = &[
    (Cue::Scheme, "://"),
    (Cue::Begin, "-----BEGIN "),
    (Cue::End, "-----END "),
    (Cue::Jwt, "eyJ"),
    (Cue::At, "(at)|[at]| at "),
    (Cue::Home, "/home/|/users/|\\users\\|\\\\users\\\\|documents and settings\\"),
    (
        Cue::Author,
        "author:|committer:|author |committer |tagger |co-authored-by:|signed-off-by:|reviewed-by:|acked-by:|\
         tested-by:|reported-by:|from:|to:|cc:|reply-to:|commit:|von:|an:|de:|da:|user.name|autor:|auteur:",
    ),
    (
        Cue::Source,
        "jdbc:|server=|data source=|host=|endpoint=sb://|defaultendpointsprotocol=|accountendpoint=|dbname=|\
         addr=|driver=",
    ),
    (
        Cue::Birth,
        "born|born on|date of birth|birth date|birthdate|birthday|dob|d.o.b|date_of_birth|birth_date|dateofbirth|(b.|\
         geboren|geboren am|geburtsdatum|geb|geburtstag|né le|née le|né(e) le|date de naissance|\
         ddn|nacido|nacida|nacido el|nacida el|nació|fecha de nacimiento|f. nac|nacimiento|nato il|nata il|nato|nata|\
         data di nascita|geboortedatum|geboren op|urodzony|urodzona|urodzony dnia|urodzona dnia|data urodzenia|ur|\
         nascimento|nascido em|nascida em|nascido|nascida|nasceu|data de nascimento|data nasc|dt. nasc|född|Född|\
         födelsedatum|Födelsedatum|född den|fødselsdato|født|Født|doğum tarihi|doğum tarihim|Doğum tarihi|doğumlu|doğdu|\
         родился|родилась|Родился|Родилась|дата рождения|Дата рождения|г.р.|生年月日|生まれ|誕生日|出生日期|\
         syntymäaika|syntynyt|narozen|narozena|datum narození|született|生日|naissance|birth|cumpleaños",
    ),
    (
        Cue::Phone,
        "phone|phones|telephone|tel|telefon|telefono|teléfono|Teléfono|téléphone|Téléphone|telefone|\
         telefoon|telefoonnummer|telefonnummer|telefonszám|mobile|mobil|mobiel|móvil|Móvil|celular|cell|\
         cellphone|handy|handynummer|mob|gsm|portable|cellulare|komórka|kom|komórkowy|telemóvel|\
         fax|call|call me|ring|rufen|ruf|appelez|appeler|chiama|chiamami|llama|llámame|llamar|ligar|liga|liga para|ligue|bel|\
         zadzwoń|dzwonić|ring mig|whatsapp|zap|sms|text me|contact number|phone number|number is|numer|nummer|\
         numéro|número|numero|cep telefonu|cep|telefonu|ara|тел|телефон|Телефон|Тел|моб|звоните|позвоните|\
         電話|電話番号|携帯|手机|电话|mobiltelefon|phonenumber|phone_number|msisdn|hotline|erreichbar|reach me|\
         reached at|joindre|joignable|rückruf|bereikbaar|viber|telegram|signal|dial|kontakttelefon",
    ),
    (
        Cue::Password,
        "password|passwords|passwd|pwd|passphrase|passcode|pass|pw|passwort|kennwort|mot de passe|mdp|contraseña|\
         Contraseña|clave|senha|palavra-passe|wachtwoord|hasło|Hasło|lösenord|Lösenord|şifre|Şifre|şifresi|parola|\
         пароль|Пароль|パスワード|密码|adgangskode|salasana|heslo|jelszó|pin code|user_password|db_password|\
         db_pass|userpassword|login_password|root_password|pgpassword|mysql_pwd|smtp_pass|requirepass|sshpass",
    ),
    (
        Cue::Token,
        "secret|secrets|token|tokens|api key|api-key|api_key|apikey|api keys|api_token|api token|access key|\
         access_key|access-key|accesskey|secret key|secret_key|secret-key|secretkey|secret_key_base|\
         secret_access_key|private key|private_key|privatekey|client_secret|client secret|clientsecret|\
         client-secret|auth_token|auth token|authtoken|access_token|access token|accesstoken|refresh_token|\
         refresh token|refreshtoken|id_token|session_token|session_key|sessionid|session_id|session|signing_key|\
         signing key|signing_secret|encryption_key|encryption key|webhook_secret|credential|credentials|\
         account_key|accountkey|sharedaccesskey|shared_key|auth_key|x-api-key|bearer_token|csrf_token|sig|\
         signature|jwt_secret|app_secret|consumer_secret|bot_token|token_secret|_authtoken|clé secrète|clé api|\
         geheimnis|schlüssel|clave secreta|chave secreta|chave de api|chiave segreta|geheim|klucz api|nyckel|\
         anahtar|ключ|токен|секрет|トークン|秘密鍵|jeton|cookie|master_key|master key|hmac|salt|totp|seed",
    ),
    (Cue::Login, " -u| --user"),
    (Cue::Bearer, "bearer|basic|authorization: token"),
    (
        Cue::Globe,
        "lat|latitude|latitud|lon|lng|long|longitude|coordinates|coords|coordinate|coordenadas|coordonnées|\
         koordinaten|koordinat|gps|location|geo|breite|breitengrad|länge|współrzędne|position|standort|ubicación|\
         point|latlng|coördinaten|coordinaten|координаты|座標|緯度|posizione|localização",
    ),
    (
        Cue::RoadBefore,
        "rue |r. |avenue |boulevard |bd |allée |allées |impasse |chemin |quai |calle |c/ |c/|av. |avda. |avda |avenida |\
         plaza |pza. |paseo |pº |carrer |ronda |camino |carretera |ctra. |via |viale |piazza |piazzale |corso |largo |\
         vicolo |strada |p.zza |ul. |al. |pl. |os. |ulica |ulicy |aleja |aleje |rua |travessa |praça |estrada |\
         alameda |rodovia |ул. |улица |улице |пр. |проспект |пр-т |пер. |бульвар |Ул. |am |an der |im |unter den |\
         auf der |zum |zur |alte |neue |rambla |urb. |lungotevere |cours |route de ",
    ),
    (
        Cue::RoadAfter,
        "straße|strasse|str.|str|weg|platz|allee|gasse|ring|damm|ufer|chaussee|straat|laan|gracht|kade|plein|\
         singel|dijk|steeg|gatan|vägen|gränd|torget|stigen|backen|caddesi|cad.|sokak|sokağı|sok.|sk.|bulvarı|bulv.|\
         mahallesi|mah.|vej|gade|katu|tie|steig|pfad|hof|markt|dreef|baan|wal",
    ),
    (Cue::Prefecture, "〒|東京都|大阪府|京都府|北海道|県|区|市"),
    (Cue::State(State::Ssn), "ssn|social security|social security number|soc sec|social"),
    (Cue::State(State::Nino), "national insurance|nino|ni number|ni no"),
    (Cue::State(State::Nhs), "nhs|nhs number|nhs no"),
    (
        Cue::State(State::Nir),
        "sécurité sociale|Sécurité sociale|sécu|nir|numéro de sécu|n° sécu|securite sociale|vitale|ss",
    ),
    (
        Cue::State(State::SteuerId),
        "steuer-id|steuerid|steuer id|idnr|id-nr|steuer-identifikationsnummer|steueridentifikationsnummer|\
         identifikationsnummer|steuerliche identifikationsnummer|tin|steuernummer|tax id|steuer-idnr",
    ),
    (Cue::State(State::Dni), "dni|nie|nif|d.n.i."),
    (Cue::State(State::Bsn), "bsn|burgerservicenummer|sofinummer|sofi"),
    (
        Cue::State(State::Belgian),
        "rijksregisternummer|rijksregister|registre national|numéro national|nationaal nummer|insz|niss|nn|rrn|\
         numéro de registre national",
    ),
    (Cue::State(State::Pesel), "pesel|peselu|peselem|nr pesel"),
    (Cue::State(State::Cpf), "cpf|cpfs|cadastro de pessoa"),
    (Cue::State(State::Cnpj), "cnpj"),
    (Cue::State(State::Aadhaar), "aadhaar|aadhar|uidai|uid|आधार"),
    (Cue::State(State::Pan), "pan|pan card|permanent account number"),
    (
        Cue::State(State::Personnummer),
        "personnummer|personnumret|pnr|persnr|person-nr|samordningsnummer",
    ),
    (
        Cue::State(State::Turkish),
        "tc|t.c.|t.c|tckn|tc kimlik|kimlik no|kimlik numarası|kimlik numaram|tc no|kimlik|vatandaşlık",
    ),
    (
        Cue::State(State::Nif),
        "nif|contribuinte|número fiscal|nº fiscal|numero fiscal|identificação fiscal",
    ),
    (Cue::State(State::Sin), "sin|social insurance|social insurance number|nas"),
    (Cue::State(State::MyNumber), "マイナンバー|個人番号|my number"),
    (Cue::State(State::Inn), "инн|ИНН|снилс|СНИЛС|inn|snils"),
    (Cue::State(State::Danish), "cpr|cpr-nr|cpr-nummer|cpr nummer|personnummer|fødselsnummer|fnr"),
];
