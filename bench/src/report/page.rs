//! A self-contained page: plots as SVG, a table beneath, no script, nothing from elsewhere.

use std::fmt::Write as _;

/// Light and dark; the series' colours are told apart by those who see few.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b2330;--dim:#5b6675;--ground:#fff;--line:#d9dfe6;\
--c0:#2c6fbb;--c1:#a9bdd3;--c2:#d1700f;--c3:#7a8793;--c4:#2f8f5b;--c5:#9a4fb0}\
@media(prefers-color-scheme:dark){:root{--ink:#dde3ea;--dim:#93a0af;--ground:#14181d;\
--line:#2c343d;--c0:#6aa9ef;--c1:#45566a;--c2:#f0a04b;--c3:#8a97a4;--c4:#5fc98d;--c5:#c98be0}}\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;\
color:var(--ink);background:var(--ground)}\
h1{font-size:22px}h2{font-size:16px;margin:2em 0 .3em}p{max-width:80ch;margin:.3em 0 .8em}\
svg{max-width:100%;height:auto;display:block}\
svg text{font:11px system-ui,sans-serif;fill:var(--ink)}svg text.dim{fill:var(--dim)}\
svg line{stroke:var(--line)}pre{font-size:11px;overflow-x:auto}\
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}\
.c5{fill:var(--c5)}path{fill:none;stroke-width:2}.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}\
.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}\
.goal{stroke:var(--ink)!important;stroke-width:2}";

/// Where a page's own part begins and ends, for those who put several on one page.
const MAIN: (&str, &str) = ("<main>", "</main>");

/// A page that is being put together.
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a heading and a paragraph.
    #[must_use]
    pub fn new(title: &str, introduction: &str) -> Page {
        let body = format!("<h1>{}</h1><p>{}</p>", escape(title), escape(introduction));
        Page {
            title: title.into(),
            body,
        }
    }

    /// With a plot: a heading, what it shows, and an SVG element.
    #[must_use]
    pub fn plot(mut self, heading: &str, caption: &str, svg: &str) -> Page {
        // Writing to a string cannot fail.
        let _ = write!(
            self.body,
            "<h2>{}</h2><p>{}</p>{svg}",
            escape(heading),
            escape(caption)
        );
        self
    }

    /// With text as it was printed.
    #[must_use]
    pub fn table(mut self, text: &str) -> Page {
        let _ = write!(self.body, "<pre>{}</pre>", escape(text));
        self
    }

    /// With all that another page shows, from its HTML.
    #[must_use]
    pub fn embed(mut self, html: &str) -> Page {
        let inner = html
            .split_once(MAIN.0)
            .and_then(|(_, rest)| rest.split_once(MAIN.1));
        if let Some((inner, _)) = inner {
            self.body += "<hr>";
            self.body += inner;
        }
        self
    }

    /// The document.
    #[must_use]
    pub fn html(&self) -> String {
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width\"><title>{}</title>\
             <style>{STYLE}</style>{}{}{}</html>\n",
            escape(&self.title),
            MAIN.0,
            self.body,
            MAIN.1
        )
    }
}

/// Text that stands for itself in HTML and SVG.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_self_contained_and_escaped() {
        let page = Page::new("a <b>", "c & d")
            .plot("e", "f", "<svg></svg>")
            .html();
        assert!(page.contains("a &lt;b&gt;") && page.contains("c &amp; d"));
        assert!(page.contains("<svg>") && !page.contains("src=") && !page.contains("http"));
        let both = Page::new("g", "h").embed(&page).html();
        assert!(both.contains("a &lt;b&gt;") && both.contains("<svg>"));
        assert_eq!(both.matches("<style>").count(), 1);
    }
}
