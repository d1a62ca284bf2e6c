//! Makes the generated part of the corpus: the same on every machine.

use std::fmt::Write;

use tieline_privacy::Entity;

use super::random::Random;
use super::templates::{NOTHING, around};
use super::values::value;

/// The languages of the corpus.
pub(crate) const LANGUAGES: [&str; 12] =
    ["en", "de", "fr", "es", "it", "nl", "pl", "pt", "sv", "tr", "ru", "ja"];
/// How many spans there are of each kind in each language.
const EACH: usize = 8;

/// Sentences that hold nothing.
const FILLER: &[(&str, &str)] = &[
    ("en", "Thanks for the quick reply.|We ship on Friday.|See the notes below."),
    ("de", "Vielen Dank für die schnelle Antwort.|Wir sehen uns am Freitag um 9 Uhr.|Siehe unten."),
    ("fr", "Merci pour votre réponse rapide.|À vendredi.|Voir ci-dessous."),
    ("es", "Gracias por la respuesta.|Nos vemos el viernes.|Ver abajo."),
    ("it", "Grazie per la risposta.|Ci vediamo venerdì.|Vedi sotto."),
    ("nl", "Bedankt voor het snelle antwoord.|Tot vrijdag.|Zie onder."),
    ("pl", "Dziękuję za szybką odpowiedź.|Do piątku.|Patrz niżej."),
    ("pt", "Obrigado pela resposta.|Até sexta.|Veja abaixo."),
    ("sv", "Tack för snabbt svar.|Vi ses på fredag.|Se nedan."),
    ("tr", "Hızlı yanıt için teşekkürler.|Cuma görüşürüz.|Aşağıya bakın."),
    ("ru", "Спасибо за быстрый ответ.|До пятницы.|Смотрите ниже."),
    ("ja", "ご返信ありがとうございます。|金曜日に会いましょう。|以下をご覧ください。"),
];

/// The whole file.
pub(crate) fn corpus() -> String {
    let mut random = Random::new(0x7469_656c_696e_6501);
    let mut out = String::from(
        "# Made by the example `corpus`; all of it is invented. The form is that of written.txt.\n",
    );
    for (place, language) in LANGUAGES.iter().enumerate() {
        for entity in Entity::ALL {
            for number in 0..EACH {
                text(&mut random, &mut out, entity, language);
                if (place + number) % 3 == 0 {
                    nothing(&mut random, &mut out);
                }
            }
        }
    }
    out
}

/// A text with one value.
fn text(random: &mut Random, out: &mut String, entity: Entity, language: &str) {
    let template = random.word(around(entity, language)).to_owned();
    let value = value(random, entity, language);
    let filler = FILLER.iter().find(|(word, _)| *word == language).map_or("", |(_, filler)| filler);
    let span = template.replace("{}", &format!("⟦{entity}|{value}⟧"));
    let (before, after) = (random.word(filler), random.word(filler));
    let _ = match random.below(3) {
        0 => write!(out, "%%\n{span}\n"),
        1 => write!(out, "%%\n{before}\n{span}\n"),
        _ => write!(out, "%%\n{before}\n\n{span}\n{after}\n"),
    };
}

/// A text without any.
fn nothing(random: &mut Random, out: &mut String) {
    let form = random.word(NOTHING).replace('@', "\u{1}").replace("&str", "\u{2}");
    let form = form
        .replace("?", "\u{3}")
        .replace('*', "\u{4}")
        .replace(" % ", "\u{5}")
        .replace("#th", "5th");
    let filled =
        random.fill(&form).replace('\u{1}', "@").replace('\u{2}', "&str").replace('\u{3}', "?");
    let _ = write!(out, "%%\n{}\n", filled.replace('\u{4}', "*").replace('\u{5}', " % "));
}
