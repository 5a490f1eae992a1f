//! A bar chart of what policies save, as SVG.

use std::fmt::Write as _;

const BAR: usize = 22;
const LEFT: f64 = 110.0;
const WIDTH: f64 = 520.0;

/// Bars of shares, such as 0.16, the greatest first; the first name is what they are compared with.
pub(super) fn plot(names: &[&str], shares: &[f64]) -> String {
    let mut bars: Vec<_> = names.iter().zip(shares).skip(1).collect();
    bars.sort_by(|a, b| b.1.total_cmp(a.1));
    let greatest = shares.iter().fold(0.01f64, |max, share| max.max(share.abs()));
    let height = BAR * (bars.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <text x=\"8\" y=\"18\">Fewer misses than {}, mean over traces and sizes</text>\n",
        names[0]
    );
    for (i, (name, share)) in bars.into_iter().enumerate() {
        let top = BAR * (i + 1) + 8;
        let length = share.abs() / greatest * WIDTH;
        let fill = if *name == "adaptive" { "#c33" } else { "#89a" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" fill=\"{fill}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1} %</text>",
            top + 13,
            BAR - 5,
            LEFT + length + 6.0,
            top + 13,
            share * 100.0
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::plot;

    #[test]
    fn bars_stand_in_order() {
        let svg = plot(&["fifo", "lru", "adaptive"], &[0.0, 0.05, 0.1]);
        let at = |text: &str| svg.find(text).expect(text);
        assert!(at(">adaptive<") < at(">lru<"));
        assert!(svg.contains("10.0 %") && svg.contains("width=\"260.0\""));
    }
}
