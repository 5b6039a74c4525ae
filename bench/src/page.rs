//! Reports as a page of HTML that needs nothing but itself.

use std::fmt::Write as _;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}\
svg{max-width:100%;height:auto}\
pre{background:#f6f6f6;padding:.7rem;overflow:auto}";

/// A page under way.
#[derive(Debug)]
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
        ))
    }

    pub(crate) fn heading(&mut self, text: &str) {
        self.line(format_args!("<h2>{}</h2>", escaped(text)));
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        self.line(format_args!("<p>{}</p>", escaped(text)));
    }

    pub(crate) fn table<C: AsRef<str>>(&mut self, head: &[&str], rows: &[Vec<C>]) {
        let row = |cells: &mut dyn Iterator<Item = &str>, tag: &str| {
            let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>", cells.collect::<String>())
        };
        self.line(format_args!("<table>\n{}", row(&mut head.iter().copied(), "th")));
        for cells in rows {
            self.line(format_args!("{}", row(&mut cells.iter().map(AsRef::as_ref), "td")));
        }
        self.line(format_args!("</table>"));
    }

    /// A plot, which is markup itself.
    pub(crate) fn plot(&mut self, svg: &str) {
        self.line(format_args!("<figure>\n{svg}</figure>"));
    }

    pub(crate) fn finish(mut self) -> String {
        self.line(format_args!("</html>"));
        self.0
    }

    fn line(&mut self, markup: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{markup}").expect("a string takes any text");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn text_stays_text() {
        let mut page = Page::new("a < b");
        page.paragraph("\"x\" & y");
        page.table(&["name", "figure"], &[vec!["<script>", "1"]]);
        let html = page.finish();
        assert!(html.contains("<title>a &lt; b</title>"), "{html}");
        assert!(html.contains("<p>&quot;x&quot; &amp; y</p>"), "{html}");
        assert!(html.contains("<tr><td>&lt;script&gt;</td><td>1</td></tr>"), "{html}");
    }
}
