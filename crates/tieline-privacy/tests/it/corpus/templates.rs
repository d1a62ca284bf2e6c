//! What stands around values; `{}` is the value, `|` parts templates.

use tieline_privacy::Entity;

/// The templates for a kind in a language.
pub(crate) fn around(entity: Entity, language: &str) -> &'static str {
    let known = PERSONAL.iter().find(|(kind, word, _)| *kind == entity && *word == language);
    match known {
        Some((_, _, templates)) => templates,
        None => TECHNICAL
            .iter()
            .find(|(kind, _)| *kind == entity)
            .map_or("{}", |(_, templates)| templates),
    }
}

use Entity::{BirthDate, NationalId, Phone, Secret};

const PERSONAL: &[(Entity, &str, &str)] = &[
    (
        Phone,
        "en",
        "Call me on {} after six.|Tel: {}|{\"phone\": \"{}\", \"ext\": 12}|my cell is {}, thanks|Fax {} / office closed on Mondays",
    ),
    (
        Phone,
        "de",
        "Tel.: {}|Ruf mich unter {} an.|Handy: {}, gerne abends|Erreichbar bin ich unter {}.|Telefon;{};Fax",
    ),
    (Phone, "fr", "Tél. : {}|Appelez-moi au {} svp|portable {}|Téléphone: {} (bureau)"),
    (Phone, "es", "Tel.: {}|Llámame al {}|móvil {}|Teléfono: {} (tardes)"),
    (Phone, "it", "Tel. {}|chiamami al {}|cellulare: {}|Telefono {} int. 4"),
    (Phone, "nl", "Tel: {}|bel me op {}|Mobiel {}|telefoonnummer: {}"),
    (Phone, "pl", "tel. {}|zadzwoń: {}|komórka {}|Telefon: {} (po 17)"),
    (Phone, "pt", "Tel.: {}|liga para {}|celular {}|Telefone: {}|zap {} pode mandar"),
    (Phone, "sv", "Tel: {}|ring {} i kväll|mobil {}|Telefon {}"),
    (Phone, "tr", "Tel: {}|Cep: {}|telefon {}|GSM {}"),
    (Phone, "ru", "тел. {}|Телефон: {}|моб {}|звоните {}"),
    (Phone, "ja", "電話：{}|TEL {}|携帯 {} まで|電話番号は{}です"),
    (
        BirthDate,
        "en",
        "She was born on {} in York.|DOB: {}|{\"dateOfBirth\":\"{}\"}|date of birth {} (checked)",
    ),
    (BirthDate, "de", "geb. am {}|Geburtsdatum: {}|geboren {} in Ulm|Geburtstag {}"),
    (BirthDate, "fr", "né le {}|Date de naissance : {}|née le {} à Lyon"),
    (BirthDate, "es", "nacido el {}|Fecha de nacimiento: {}|nació el {} en Cádiz"),
    (BirthDate, "it", "nato il {}|Data di nascita: {}|nata a Bari il {}"),
    (BirthDate, "nl", "geboren op {}|Geboortedatum: {}|geb. {}"),
    (BirthDate, "pl", "urodzony {}|Data urodzenia: {}|urodzona {} w Łodzi"),
    (BirthDate, "pt", "nascido em {}|Data de nascimento: {}|nasceu em {}"),
    (BirthDate, "sv", "född {}|Födelsedatum: {}|född den {} i Lund"),
    (BirthDate, "tr", "{} doğumlu|Doğum tarihi: {}|doğum tarihi {}"),
    (BirthDate, "ru", "родился {}|Дата рождения: {}|родилась {} в Омске"),
    (BirthDate, "ja", "生年月日：{}|{}生まれ|生年月日は{}です"),
    (
        NationalId,
        "en",
        "NHS or SSN or national insurance: {}|social security / NHS no {} on file|ssn,nhs;{};x",
    ),
    (NationalId, "de", "Steuer-ID: {}|Meine Steuer-ID lautet {}.|IdNr. {}"),
    (NationalId, "fr", "N° sécurité sociale : {}|NIR {}|mon numéro de sécu est {}"),
    (NationalId, "es", "DNI {}|NIE/DNI: {}|con DNI {} y domicilio en"),
    (NationalId, "it", "C.F. {}|codice fiscale: {}|CF={};x"),
    (NationalId, "nl", "BSN {}|burgerservicenummer: {}|mijn BSN is {}."),
    (NationalId, "pl", "PESEL {}|PESEL: {}|nr PESEL {} oraz"),
    (NationalId, "pt", "CPF {}|CPF: {}|meu CPF é {}."),
    (NationalId, "sv", "Personnummer: {}|personnummer {}|pnr {}"),
    (NationalId, "tr", "TC kimlik no: {}|T.C. {}|kimlik numaram {}"),
    (NationalId, "ru", "ИНН {}|ИНН: {}|инн {} физлица"),
    (NationalId, "ja", "マイナンバー：{}|個人番号 {}|マイナンバーは{}です"),
    (Secret, "de", "Passwort: {}|Das Passwort lautet {}|Kennwort={}"),
    (Secret, "fr", "mot de passe : {}|mdp: {}|le mot de passe est {}"),
    (Secret, "es", "contraseña: {}|la contraseña es {}|clave: {}"),
    (Secret, "it", "password: {}|la password è {}|parola: {}"),
    (Secret, "nl", "wachtwoord: {}|het wachtwoord is {}"),
    (Secret, "pl", "hasło: {}|hasło to {}"),
    (Secret, "pt", "senha: {}|a senha é {}"),
    (Secret, "sv", "lösenord: {}|lösenordet är hemligt, lösenord: {}"),
    (Secret, "tr", "şifre: {}|parola: {}"),
    (Secret, "ru", "пароль: {}|пароль {}"),
    (Secret, "ja", "パスワード：{}|パスワードは{}です"),
];

const TECHNICAL: &[(Entity, &str)] = &[
    (
        Entity::Email,
        "mail {} please|<{}>|{\"email\":\"{}\"}|a;{};b|→ {},|E-Mail: {}|mailto:{}?subject=x|user={}",
    ),
    (
        Entity::Card,
        "card {}|Karte: {}, gültig bis 11/27|{\"pan\":\"{}\"}|carte {} exp 09/28|{};Visa|pagó con {}",
    ),
    (Entity::Iban, "IBAN {}|auf {} überweisen|sur le compte {}.|\"iban\": \"{}\"|konto {}|{}\tEUR"),
    (Entity::PostalAddress, "({})|Adresse: {}|addr=\"{}\"|{};x|— {} —"),
    (Entity::IpAddress, "from {} port 22|peer={} up|[{}] GET /|\"ip\":\"{}\"|ping {}"),
    (Entity::MacAddress, "mac {}|\"hw\":\"{}\"|ether {} txqueuelen 1000|dhcp: {} → lease"),
    (Entity::Coordinates, "at {}.|gps: {}|lat/lon {}|\"{}\"|see {} on the map"),
    (Entity::CredentialUrl, "git clone {}|url: {}|\"{}\"|see {} there"),
    (Entity::ConnectionString, "DATABASE_URL={}|dsn: \"{}\"|conn = '{}'|uses `{}` today"),
    (Entity::PrivateKey, "key:\n{}\n|{}|see\n\n{}\n\nthanks"),
    (Entity::Jwt, "Authorization: Bearer {}|\"jwt\": \"{}\"|token={}|got {} back"),
    (Entity::ApiKey, "KEY={}|\"key\": \"{}\"|export TOKEN={}|use {} for now|api_key: '{}'"),
    (
        Secret,
        "password: {}|DB_PASSWORD={}|\"password\": \"{}\"|the password is {}|api_key = \"{}\"|client_secret: {}|passwd={}",
    ),
    (Entity::Term, "about {} today|{}: notes|\"{}\"|the {} deck"),
    (
        Entity::Path,
        "/home/{}/src/main.rs:12|/Users/{}/Library/Caches|C:\\Users\\{}\\AppData\\Local|File \"/home/{}/x.py\", line 3",
    ),
    (
        Entity::GitIdentity,
        "Author: {}|Signed-off-by: {}|Co-authored-by: {}|From: {}|committer {} 1700000000 +0100",
    ),
];

/// What looks like something and is nothing; filled as [`super::random::Random::fill`] does, but for `@`.
pub(crate) const NOTHING: &str = "Order ######## shipped on 2026-0&-1# at 12:3#:0#.|Version &.#.&#, build ########|uuid %%%%%%%%-%%%%-4%%%-a%%%-%%%%%%%%%%%%|sha256 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%|ts=17########123 dur=&#.###ms|ISBN 978-3-16-148410-#|Rechnung Nr. 2026-######, Betrag 1.2##,50 EUR|commande n° ########, total 45,&# €|Pedido ########### enviado|invoice 4###-####-12|pi is 3.14159265358979|v&.&.&-rc.&, released 2026-0&-1#|rows &##,### of &,###,###|[0.####, 0.####, 0.####]|GET /users/&### 200 &#ms|chr1:&#######-&#######|Zählerstand 00&###, Raum 3.&#|EAN 4006381######|0x%%%%%%%%, 0b1011, 1e-&|Meeting 2026-1&-0# 14:00–15:30, room B&#|password reset link sent|the token expired, please sign in again|secret santa is on the 1#th|std::collections::HashMap::<u64, u32>::new()|let token: &str = parse(input)?;|postgres://localhost/app|https://example.org:8443/a?b=&#|tel aviv 2026|born to run (19&#)|Calle Mayor is long|Rue de Rivoli|5 Street artists|foo@2x.png|npm i @types/node@20.&.#|127.0.0.1:80&#|version 1.2.3.&|RFC &###, section 4.2.1.&|Fig. 3.2, p. &##|+&# % growth|(&##) items|scale 1:25000|100-200-300|&&&-##-####-#";
