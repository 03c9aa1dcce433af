//! JUnit XML: a test case for each target, one for the generator, one for each thing that is not
//! supported. As CI servers read it (the schema of Jenkins' xunit plug-in).

use crate::result::{Outcome, RunResult};
use std::fmt::Write as _;

/// The file.
#[must_use]
pub fn render(result: &RunResult) -> String {
    let mut cases = String::new();
    let suite = format!("sealcast-load.{}", result.scenario.name);
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    let mut case = |name: &str, inner: &str| {
        tests += 1;
        let (suite, name) = (escape(&suite), escape(name));
        // Writing to a String cannot fail.
        let _ = writeln!(
            cases,
            "  <testcase classname=\"{suite}\" name=\"{name}\">{inner}</testcase>"
        );
    };
    let outcome = result.outcome();
    if outcome == Outcome::CouldNotRun && result.not_supported.is_empty() {
        let told: Vec<String> = result.errors.keys().cloned().collect();
        errors += 1;
        case(
            "runs",
            &format!("<error message=\"{}\"/>", escape(&told.join("; "))),
        );
    }
    if outcome != Outcome::CouldNotRun {
        if result.validity.valid() {
            case("the generator kept up", "");
        } else {
            errors += 1;
            let faults = result.validity.faults.join("; ");
            case(
                "the generator kept up",
                &format!("<error message=\"{}\"/>", escape(&faults)),
            );
        }
    }
    for v in &result.verdicts {
        let measured = v.measured.as_deref().unwrap_or("not measured");
        if !result.validity.valid() {
            skipped += 1;
            case(&v.target, "<skipped message=\"the run is invalid\"/>");
        } else if v.met {
            case(
                &v.target,
                &format!("<system-out>{}</system-out>", escape(measured)),
            );
        } else {
            failures += 1;
            case(
                &v.target,
                &format!("<failure message=\"measured: {}\"/>", escape(measured)),
            );
        }
    }
    for lack in &result.not_supported {
        skipped += 1;
        case(lack, "<skipped message=\"not supported\"/>");
    }
    let time = result.windows.iter().map(|w| w.length_ms).sum::<u64>() as f64 / 1_000.0;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time}\">\n{cases}</testsuite>\n",
        escape(&suite)
    )
}

/// XML 1.0 §2.4 and §2.2: markup is escaped, characters that XML does not have are left out.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Phase, Window};
    use crate::slo::Verdict;

    fn verdict(target: &str, met: bool) -> Verdict {
        Verdict {
            target: target.into(),
            measured: Some("3".into()),
            met,
        }
    }

    #[test]
    fn tells_targets_validity_and_what_is_not_supported_apart() {
        let mut result = RunResult {
            windows: vec![Window {
                phase: Phase::Measure,
                length_ms: 1_500,
                ..Window::default()
            }],
            verdicts: vec![verdict("loss < 1%", true), verdict("misrouted = 0", false)],
            not_supported: vec!["a \"lane\" & more\u{1}".into()],
            ..RunResult::default()
        };
        let xml = render(&result);
        assert!(xml.contains("tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"1.5\""));
        assert!(xml.contains("name=\"loss &lt; 1%\"><system-out>3"));
        assert!(xml.contains("name=\"a &quot;lane&quot; &amp; more\""));
        result.validity.faults.push("lag".into());
        assert!(render(&result).contains("failures=\"0\" errors=\"1\" skipped=\"3\""));
    }
}
