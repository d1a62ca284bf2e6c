//! Programs that judge the first answer of a cascade.

use tieline_types::{DataClass, Private};

use super::*;
use crate::carry::{Checked, Checker, Program};

/// Finds always the same; `None`: it never ends.
#[derive(Debug)]
struct Finds {
    found: Option<Checked>,
    shown: Mutex<Vec<String>>,
}

#[async_trait]
impl Checker for Finds {
    async fn check(&self, program: &Program, text: Private) -> Checked {
        assert_eq!(program.words, ["judge"]);
        self.shown.lock().unwrap().push(text.into_inner());
        match self.found {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

/// What is said, and how the first answer was judged, where this is found.
async fn judged(
    found: Option<Checked>,
    class: Option<DataClass>,
) -> (Option<String>, Judged, usize) {
    let vendor = Arc::new(Vendor::default());
    let router = Router::new(Arc::new(Scripted::hello()), None);
    let checker = Arc::new(Finds { found, shown: Mutex::default() });
    let more = "[[rule]]\nname = \"even so\"\nclass = \"secret\"\nzone = \"cloud\"\nas = \"as-is\"\n\
                [preferences]\ncascade_margin = 1\n[models.code]\ncheck = \"judge\"\ntotal = \"5s\"\n";
    let text = POLICY.replace("quality = { any = 0.2 }", "quality = 0.6") + more;
    let policy = Policy::parse(&text).unwrap();
    let checking = Some(Arc::clone(&checker) as Arc<dyn Checker>);
    router.switch().replace(Setup { policy, checker: checking, ..setup(&vendor) });
    let mut call = call("code");
    call.hints.data_class = class.map(|class| class.as_str().to_owned());
    let request = chat(&[(Role::User, "Hi")]);
    let mut stream = router.decide(call, &request).await.unwrap().run(request).await.unwrap();
    let mut said = Some(String::new());
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Piece(piece)) => said.as_mut().unwrap().push_str(piece.text.expose()),
            Ok(_) => {}
            Err(_) => said = None,
        }
    }
    drop(stream);
    let shown = checker.shown.lock().unwrap().clone();
    assert!(shown.iter().all(|text| text == "Hello there."), "{shown:?}");
    (said, last(&router).tried[0].judged.unwrap(), shown.len())
}

#[track_caller]
fn check((said, judged, shown): (Option<String>, Judged, usize), want: (Option<&str>, Checked)) {
    assert_eq!((said.as_deref(), judged.check), (want.0, Some(want.1)));
    assert_eq!(judged.kept, want.1 == Checked::Passed);
    assert_eq!(shown, usize::from(want.1 != Checked::NotRun));
}

#[tokio::test(start_paused = true)]
async fn what_the_program_finds_decides_and_is_on_record() {
    check(judged(Some(Checked::Passed), None).await, (Some("Hello there."), Checked::Passed));
    check(judged(Some(Checked::Failed), None).await, (Some("afar"), Checked::Failed));
    let secret = judged(Some(Checked::Passed), Some(DataClass::Secret)).await;
    check(secret, (Some("afar"), Checked::NotRun));
    // Whoever is not done when the request's time is over is late, and so is the answer.
    check(judged(None, None).await, (None, Checked::Late));
}
