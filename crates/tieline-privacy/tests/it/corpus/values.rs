//! Values of each kind, as the language's land writes them.

use super::numbers::{grouped, iban, luhn, national};
use super::random::Random;
use tieline_privacy::Entity;

/// First names, family names, streets, towns with codes, forms of telephone numbers, and of accounts.
struct Land {
    language: &'static str,
    first: &'static str,
    last: &'static str,
    /// `{s}` is a road, `{n}` a house number.
    address: &'static str,
    roads: &'static str,
    towns: &'static str,
    phones: &'static str,
    state: &'static str,
    account: &'static str,
    dates: &'static str,
}

const LANDS: &[Land] = &[
    Land {
        language: "en",
        first: "jane|oliver|mary-ann|george",
        last: "carter|smith|whitfield|oneil",
        address: "{n} {s}, {t}",
        roads: "High Street|Church Road|Maple Avenue|Old Mill Lane|West 4th Street|King's Parade",
        towns: "London SW1A 2AA|Leeds LS1 4AP|Springfield, IL 62704|Portland, OR 97205|",
        phones: "(2##) 555-01##|312-555-01##|+44 20 7946 0###|07700 900###|+1 415 555 01##",
        state: "GB",
        account: "NWBK##############",
        dates: "03/14/19&#|March 14, 198#|14 June 197#|198#-03-14",
    },
    Land {
        language: "de",
        first: "lena|jürgen|ulrike|max",
        last: "müller|schröder|vogel|krahl",
        address: "{s} {n}, {t}",
        roads: "Hauptstraße|Gartenstr.|Kirchweg|Lange Gasse|Marktplatz|Lindenallee",
        towns: "10115 Berlin|50667 Köln|80331 München|",
        phones: "+49 30 ########|030 / 5550###|0171 5550###|089/5550###|0049 221 55501##",
        state: "DE",
        account: "##################",
        dates: "14.03.198#|14. März 197#|1.2.199#",
    },
    Land {
        language: "fr",
        first: "claire|benoît|amélie|jean-luc",
        last: "berthier|dupont|lefèvre|moreau",
        address: "{n} {s}, {t}",
        roads: "rue de la Paix|avenue Victor Hugo|boulevard Saint-Michel|place des Vosges|chemin du Moulin|impasse Molière",
        towns: "75002 Paris|69003 Lyon|33000 Bordeaux|",
        phones: "06 12 34 5# ##|01.45.67.8#.##|+33 6 12 34 5# ##|0470 12 3# ##",
        state: "FR",
        account: "####################0##",
        dates: "14/03/198#|14 mars 197#|1er août 199#",
    },
    Land {
        language: "es",
        first: "marta|josé|lucía|álvaro",
        last: "garcía|muñoz|pérez|romero",
        address: "{s} {n}, {t}",
        roads: "Calle Mayor|Avenida de América|Plaza de España|Paseo de Gracia|C/ Alcalá|Calle de la Princesa",
        towns: "28013 Madrid|08007 Barcelona|41001 Sevilla|",
        phones: "612 34 5# ##|+34 612 345 6##|91 123 4# ##",
        state: "ES",
        account: "####################",
        dates: "14/03/198#|14 de marzo de 197#|1 de agosto de 199#",
    },
    Land {
        language: "it",
        first: "giulia|marco|niccolò|chiara",
        last: "rossi|conti|esposito|d'amico",
        address: "{s} {n}, {t}",
        roads: "Via Roma|Viale Monza|Piazza Garibaldi|Corso Vittorio Emanuele|Via dei Mille|Largo Augusto",
        towns: "00184 Roma|20121 Milano|10123 Torino|",
        phones: "+39 347 555 01##|333 55501##|02 5550 12##",
        state: "IT",
        account: "X######################",
        dates: "14/03/198#|14 marzo 197#|1 agosto 199#",
    },
    Land {
        language: "nl",
        first: "joost|sanne|pieter|fleur",
        last: "de.vries|jansen|bakker|visser",
        address: "{s} {n}, {t}",
        roads: "Kerkstraat|Prinsengracht|Molenweg|Stationsplein|Beatrixlaan|Nieuwezijds Kade",
        towns: "1017 GC Amsterdam|3511 EV Utrecht|",
        phones: "06-123456##|020 555 01##|+31 6 123456##|010-55501##",
        state: "NL",
        account: "ABNA##########",
        dates: "14-03-198#|14 maart 197#|1 augustus 199#",
    },
    Land {
        language: "pl",
        first: "anna|paweł|zofia|łukasz",
        last: "nowak|kowalczyk|wiśniewska|zając",
        address: "{s} {n}, {t}",
        roads: "ul. Długa|ul. Nowy Świat|al. Jerozolimskie|os. Kolorowe|pl. Wolności|ul. Jana Pawła II",
        towns: "00-238 Warszawa|31-042 Kraków|",
        phones: "601 234 5##|+48 601 234 5##|22 555 01 ##",
        state: "PL",
        account: "########################",
        dates: "14.03.198#|14 marca 197#|1 sierpnia 199#",
    },
    Land {
        language: "pt",
        first: "joão|beatriz|inês|tiago",
        last: "silva|ferreira|conceição|lopes",
        address: "{s}, {n}, {t}",
        roads: "Rua Augusta|Avenida Paulista|Travessa do Carmo|Praça da Sé|Alameda Santos|Rua das Flores",
        towns: "01304-001 São Paulo|1200-109 Lisboa|",
        phones: "(11) 98765-43##|+55 11 98765-43##|912 345 6##|+351 912 345 6##",
        state: "PT",
        account: "#####################",
        dates: "14/03/198#|14 de março de 197#|1 de agosto de 199#",
    },
    Land {
        language: "sv",
        first: "anna|björn|åsa|karl",
        last: "lindqvist|öberg|johansson|ek",
        address: "{s} {n}, {t}",
        roads: "Drottninggatan|Kungsgatan|Skolvägen|Storgatan|Åsögatan|Stortorget",
        towns: "111 36 Stockholm|411 03 Göteborg|",
        phones: "070-123 45 ##|08-555 01 ##|+46 70 123 45 ##",
        state: "SE",
        account: "####################",
        dates: "198#-03-14|14 mars 197#|1 augusti 199#",
    },
    Land {
        language: "tr",
        first: "ayşe|mehmet|zeynep|çağrı",
        last: "yılmaz|demir|öztürk|şahin",
        address: "{s} No: {n}, {t}",
        roads: "Atatürk Caddesi|Bağdat Caddesi|Lale Sokak|Cumhuriyet Bulvarı|Gül Sokağı|İnönü Cad.",
        towns: "34728 İstanbul|06420 Ankara|",
        phones: "0532 123 45 ##|+90 532 123 45 ##|0212 555 01 ##",
        state: "TR",
        account: "######################",
        dates: "14.03.198#|14 Mart 197#|1 Ağustos 199#",
    },
    Land {
        language: "ru",
        first: "olga|ivan|дарья|sergey",
        last: "petrova|smirnov|волков|orlov",
        address: "{s}, д. {n}",
        roads: "ул. Ленина|ул. Большая Дмитровка|пр. Мира|улица Гоголя|пер. Садовый|бульвар Роз",
        towns: "",
        phones: "+7 916 555-01-##|8 (495) 555-01-##|8 (916) 555-01-##",
        state: "KZ",
        account: "################",
        dates: "14.03.198#|14 марта 197#|1 августа 199#",
    },
    Land {
        language: "ja",
        first: "yamada|tanaka|sato|mori",
        last: "taro|hanako|yuki|ken",
        address: "{s}{n}-2-1",
        roads: "東京都渋谷区渋谷|大阪府大阪市北区梅田|〒150-0002 東京都渋谷区渋谷|京都府京都市中京区寺町|神奈川県横浜市西区高島|北海道札幌市中央区大通西",
        towns: "",
        phones: "03-1234-56##|090-1234-56##|+81 90-1234-56##|０９０－１２３４－５６７８",
        state: "GB",
        account: "BUKB##############",
        dates: "198#年3月14日|197#/3/14|198#-03-14",
    },
];

fn land(language: &str) -> &'static Land {
    LANDS.iter().find(|land| land.language == language).unwrap_or(&LANDS[0])
}

/// A value of this kind in the language's land.
pub(crate) fn value(random: &mut Random, entity: Entity, language: &str) -> String {
    let land = land(language);
    match entity {
        Entity::Email => email(random, land),
        Entity::Phone => form(random, land.phones),
        Entity::Card => card(random),
        Entity::Iban => account(random, land),
        Entity::NationalId => national(random, language),
        Entity::BirthDate => form(random, land.dates),
        Entity::PostalAddress => address(random, land),
        Entity::GitIdentity => format!("{} <{}>", name(random, land), email(random, land)),
        Entity::Path => format!("{}{}", initial(random.word(land.first)), random.word("carter|smith|vogel|berthier|nowak9|lima-x")),
        Entity::Term => random.word("Project Falcon|PROJECT FALCON|project-falcon|Blauer Reiher|blauer_reiher|Nordlicht|NORDLICHT|山田商事|Operação Girassol|operacao girassol|Ｎｏｒｄｌｉｃｈｔ|Nоrdlicht").to_owned(),
        other => technical(random, other),
    }
}

fn form(random: &mut Random, forms: &str) -> String {
    let form = random.word(forms).to_owned();
    random.fill(&form)
}

fn initial(word: &str) -> String {
    word.chars().take(1).collect()
}

fn email(random: &mut Random, land: &Land) -> String {
    let (first, last) = (random.word(land.first), random.word(land.last));
    let host = random.word("example.org|mail.example.com|firma-nord.de|posta.example.it|uni.example.ac.uk|examplé.fr|corp.example");
    match random.below(4) {
        0 => format!("{first}.{last}@{host}"),
        1 => format!("{}_{last}{}@{host}", initial(first), random.within(1, 99)),
        2 => format!("{first}+{}@{host}", random.word("news|shop|2026|x")),
        _ => format!("{}@{host}", random.word("info|kontakt|hr-team|o.brien|x99")),
    }
}

fn name(random: &mut Random, land: &Land) -> String {
    let great = |word: &str| {
        let mut signs = word.chars();
        let first = signs.next().map(|sign| sign.to_uppercase().to_string()).unwrap_or_default();
        first + signs.as_str()
    };
    format!(
        "{} {}",
        great(random.word(land.first)),
        great(&random.word(land.last).replace('.', " "))
    )
}

fn address(random: &mut Random, land: &Land) -> String {
    let number = random.within(1, 240).to_string();
    let road = random.word(land.roads);
    let town = random.word(land.towns);
    let whole = land.address.replace("{s}", road).replace("{n}", &number).replace("{t}", town);
    whole.trim_end_matches([',', ' ']).to_owned()
}

fn account(random: &mut Random, land: &Land) -> String {
    let body = random.fill(land.account);
    let whole = iban(land.state, &body);
    match random.below(3) {
        0 => whole,
        1 => grouped(&whole, &[4], "\u{a0}"),
        _ => grouped(&whole, &[4], " "),
    }
}

fn card(random: &mut Random) -> String {
    let form = random.word("4##############|51#############|2221###########|6011###########|3528###########|37############");
    let whole = luhn(&random.fill(form));
    let sizes: &[usize] = if whole.len() == 15 { &[4, 6, 5] } else { &[4] };
    match random.below(3) {
        0 => whole,
        1 => grouped(&whole, sizes, "-"),
        _ => grouped(&whole, sizes, " "),
    }
}

fn technical(random: &mut Random, entity: Entity) -> String {
    let form = match entity {
        Entity::IpAddress => {
            "10.&.#.&#|192.168.&.&#|203.0.113.&#|2001:db8:%%%%:%%%%::%%%&|fe80::%%%%:%%ff:fe%%:%%%%|172.16.&#.&"
        }
        Entity::MacAddress => "0&:1a:%%:%%:%%:%&|A&-BB-%#-0%-%%-%&|0%&b.%%%%.%%a&",
        Entity::Coordinates => {
            "52.5&##, 13.4###|-33.86##,151.20##|48.858&° N, 2.294#° E|52°31'1#\"N 13°24'1#\"E|35.6&##, 139.69##"
        }
        Entity::CredentialUrl => {
            "https://bob:s&#cr*t*@git.example.org/team/app.git|ftp://backup:Zt*#*#*@files.example.net:21/|http://svc:p*#*#%@10.0.0.&:8080/api"
        }
        Entity::ConnectionString => {
            "postgres://app:Q*#*#*#@db.internal:5432/shop|mongodb+srv://root:*#*#*#@cluster0.example.net/admin|Server=sql&;Database=pay;User Id=sa;Password=W*#*#*;|host=db&.local user=app password=*#*#*# dbname=app|redis://:*#*#*#@cache:6379/&|jdbc:mysql://db:3306/x?user=a&password=*#*#*#"
        }
        Entity::Jwt => {
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIi********************.******************************************#"
        }
        Entity::ApiKey => {
            "A¦KIA@#@#@#@#@#@#@#@#|gh¦p_************************************|sk_¦live_#***********************|gl¦pat-#*******************|xox¦b-##########-#*********************|hf_¦#*********************************|SG¦.#*********************.*******************************************|AI¦za#**********************************|np¦m_#***********************************|sk-¦proj-#**********************************************|dop_¦v1_%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%|gl¦sa_********************************_%%%%%%%%|&########:A¦A*********************************"
        }
        Entity::Secret => {
            "Tr0ub*&r!#|S0mmer&#-x*|a#*#*#*#*#*#*#*#*#*|%%a#%%%#b%%#%%%f%%%#%%%#%c%#%%&%|K*ffee&#Kuchen!"
        }
        Entity::PrivateKey => {
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE************************************************************\n****************************==\n-----END RSA PRIVATE KEY-----|-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY************************************************************\n=****\n-----END PGP PRIVATE KEY BLOCK-----|-----BEGIN EC PRIVATE KEY-----\nMHcC************************************\n-----END EC PRIVATE KEY-----"
        }
        _ => "",
    };
    // A `@` before a host stays one.
    let form = random.word(form).to_owned();
    let whole = random.fill(
        &form
            .replace("@git", "\u{1}git")
            .replace("@files", "\u{1}files")
            .replace("@10", "\u{1}10")
            .replace("@db", "\u{1}db")
            .replace("@cl", "\u{1}cl")
            .replace("@ca", "\u{1}ca"),
    );
    whole.replace('\u{1}', "@")
}
