//! Styled paragraphs that are wrapped to the terminal's width.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// Some text in one style.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    style: Style,
    text: String,
}

/// `text` in `style`.
pub(crate) fn span(style: Style, text: impl Into<String>) -> Span {
    Span { style, text: text.into() }
}

/// How many columns these take on one line.
pub(crate) fn width_of(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.text.width()).sum()
}

/// A blank at which no line breaks; it is written as a plain one.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// Text that grows by paragraphs.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    width: usize,
}

impl Page {
    /// An empty page, at least 40 columns wide: below that no sentence is readable.
    pub(crate) fn new(width: usize) -> Self {
        Self { text: String::new(), width: width.max(40) }
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// One paragraph: its first line begins at column `first`, the others at column `rest`.
    pub(crate) fn paragraph(&mut self, first: usize, rest: usize, spans: &[Span]) {
        let mut line = Line { text: &mut self.text, column: 0, width: self.width, indent: first, rest };
        let mut gap = 0;
        for span in spans {
            for piece in span.text.split_inclusive(' ') {
                let word = piece.trim_end_matches(' ');
                if !word.is_empty() {
                    line.word(gap, word, span.style);
                    gap = 0;
                }
                gap += piece.len() - word.len();
            }
        }
        self.text.push('\n');
    }

    /// Text as it is, indented.
    pub(crate) fn verbatim(&mut self, indent: usize, style: Style, text: &str) {
        for line in text.lines() {
            self.text.push_str(&format!("{:indent$}{style}{line}{style:#}\n", ""));
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

struct Line<'a> {
    text: &'a mut String,
    column: usize,
    width: usize,
    /// Where the line begins.
    indent: usize,
    /// Where the next ones do.
    rest: usize,
}

impl Line<'_> {
    fn word(&mut self, gap: usize, word: &str, style: Style) {
        let gap = if self.column == 0 { 0 } else { gap };
        if self.column > 0 && self.column + gap + word.width() > self.width && gap > 0 {
            self.wrap();
            return self.word(0, word, style);
        }
        if self.column == 0 {
            self.pad(self.indent);
        }
        self.pad(gap);
        self.text.push_str(&style.render().to_string());
        for (at, piece) in self.pieces(word).into_iter().enumerate() {
            if at > 0 {
                self.text.push_str(&style.render_reset().to_string());
                self.wrap();
                self.pad(self.indent);
                self.text.push_str(&style.render().to_string());
            }
            self.text.extend(piece.chars().map(|c| if c == NO_BREAK { ' ' } else { c }));
            self.column += piece.width();
        }
        self.text.push_str(&style.render_reset().to_string());
    }

    fn wrap(&mut self) {
        self.text.push('\n');
        self.column = 0;
        self.indent = self.rest;
    }

    fn pad(&mut self, columns: usize) {
        self.text.extend(std::iter::repeat_n(' ', columns));
        self.column += columns;
    }

    /// The word, cut where it is longer than a whole line: better behind a slash than anywhere.
    fn pieces<'w>(&self, word: &'w str) -> Vec<&'w str> {
        let mut pieces = Vec::new();
        let mut rest = word;
        let mut room = self.width.saturating_sub(self.column).max(1);
        while rest.width() > room {
            let fits = rest
                .char_indices()
                .map(|(at, c)| at + c.len_utf8())
                .take_while(|end| rest.get(..*end).is_some_and(|head| head.width() <= room))
                .last();
            let Some(fits) = fits else { break };
            let head = rest.get(..fits).unwrap_or(rest);
            let cut = head.rfind('/').map_or(fits, |slash| slash + 1);
            let Some((head, tail)) = rest.split_at_checked(cut) else { break };
            pieces.push(head);
            rest = tail;
            room = self.width.saturating_sub(self.rest).max(1);
        }
        pieces.push(rest);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(width: usize, first: usize, rest: usize, text: &str) -> Vec<String> {
        let mut page = Page::new(width);
        page.paragraph(first, rest, &[span(Style::new(), text)]);
        page.into_text().lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn lines_break_between_words_and_hang() {
        assert_eq!(
            wrapped(40, 2, 6, "one two three four five six seven eight nine"),
            ["  one two three four five six seven", "      eight nine"]
        );
        assert_eq!(wrapped(40, 0, 0, "a  b"), ["a  b"], "gaps inside a line stay");
    }

    #[test]
    fn a_word_longer_than_the_line_is_cut_behind_a_slash() {
        let name = format!("{}/{}", "n".repeat(30), "w".repeat(30));
        let lines = wrapped(40, 2, 4, &name);
        assert_eq!(lines, [format!("  {}/", "n".repeat(30)), format!("    {}", "w".repeat(30))]);
        for line in wrapped(40, 2, 4, &"x".repeat(100)) {
            assert!(line.width() <= 40, "{line}");
        }
    }

    #[test]
    fn wide_characters_count_as_two() {
        for line in wrapped(40, 0, 0, &"漢字 ".repeat(20)) {
            assert!(line.width() <= 40, "{line}");
        }
    }
}
