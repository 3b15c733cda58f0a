//! `hull images --tree`: images, and below each its platforms; with `-a` also its layers.

use hull_api_types::image::{ImageSummary, LayerSummary, ManifestSummary};

use crate::format::human;

/// Columns after the first: title and width.
const COLUMNS: [(&str, usize); 4] = [
    ("ID", 12),
    ("DISK USAGE", 10),
    ("CONTENT SIZE", 12),
    ("EXTRA", 5),
];
/// Between two columns.
const GAP: &str = "   ";
/// Narrowest first column before names are cut.
const NARROWEST: usize = 12;
/// Where the output is no terminal nothing is cut.
const ENDLESS: usize = usize::MAX;

/// One line: the text of the first column and the values of the others.
struct Line {
    text: String,
    values: Option<[String; COLUMNS.len()]>,
}

/// The whole text; `width` is the terminal's, if there is one.
pub(crate) fn render(images: &[ImageSummary], layers: bool, width: Option<usize>) -> String {
    let mut lines = Vec::new();
    for image in images {
        top(image, &mut lines);
        let children: Vec<&ManifestSummary> = image
            .manifests
            .iter()
            .filter(|manifest| manifest.kind == "image")
            .collect();
        for (number, child) in children.iter().enumerate() {
            platform(child, number + 1 == children.len(), layers, &mut lines);
        }
    }
    let rest: usize = COLUMNS.iter().map(|(_, width)| GAP.len() + width).sum();
    let room = width.map_or(ENDLESS, |width| width.saturating_sub(rest).max(NARROWEST));
    let widest = lines.iter().map(|line| line.text.chars().count()).max();
    let first = widest.unwrap_or(0).max("IMAGE".len()).min(room);
    let titles = COLUMNS.map(|(title, _)| title.to_owned());
    let mut out = legend(first);
    out.push_str(&row("IMAGE", Some(&titles), first));
    for line in &lines {
        out.push_str(&row(&line.text, line.values.as_ref(), first));
    }
    out
}

/// What the letters in the last column mean, at the right.
fn legend(first: usize) -> String {
    let text = "i Info →   U  In Use";
    let rest: usize = COLUMNS.iter().map(|(_, width)| GAP.len() + width).sum();
    let pad = (first + rest).saturating_sub(text.chars().count());
    format!("{}{text}\n", " ".repeat(pad))
}

fn row(text: &str, values: Option<&[String; COLUMNS.len()]>, first: usize) -> String {
    let mut out = fit(text, first);
    for ((title, width), value) in COLUMNS.iter().zip(values.into_iter().flatten()) {
        out.push_str(GAP);
        // Numbers to the right, words to the left.
        if title.contains("SIZE") || title.contains("USAGE") {
            out.push_str(&format!("{value:>width$}"));
        } else {
            out.push_str(&format!("{value:<width$}"));
        }
    }
    format!("{}\n", out.trim_end())
}

fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{text}{}", " ".repeat(width - length));
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// The image: all its names, the figures beside the last.
fn top(image: &ImageSummary, lines: &mut Vec<Line>) {
    let own: Vec<&ManifestSummary> = image
        .manifests
        .iter()
        .filter(|manifest| manifest.kind == "image")
        .collect();
    let used = image.containers > 0
        || own.iter().any(|one| {
            one.image_data
                .as_ref()
                .is_some_and(|i| !i.containers.is_empty())
        });
    let values = values(
        &image.id,
        image.size,
        own.iter().map(|one| one.size.content).sum(),
        used,
    );
    let mut names = image.repo_tags.clone();
    if names.is_empty() {
        names.extend(image.repo_digests.first().cloned());
    }
    if names.is_empty() {
        names.push("<untagged>".to_owned());
    }
    let last = names.pop();
    lines.extend(names.into_iter().map(|text| Line { text, values: None }));
    lines.extend(last.map(|text| Line {
        text,
        values: Some(values),
    }));
}

fn values(id: &str, disk: i64, content: i64, used: bool) -> [String; COLUMNS.len()] {
    [
        human::short_id(id),
        human::size(disk),
        human::size(content),
        if used { "U" } else { "" }.to_owned(),
    ]
}

fn platform(child: &ManifestSummary, last: bool, layers: bool, lines: &mut Vec<Line>) {
    let data = child.image_data.clone().unwrap_or_default();
    let parts = [
        &data.platform.os,
        &data.platform.architecture,
        &data.platform.variant,
    ];
    let name: Vec<&str> = parts
        .iter()
        .map(|part| part.as_str())
        .filter(|part| !part.is_empty())
        .collect();
    let branch = if last { "└─ " } else { "├─ " };
    lines.push(Line {
        text: format!("{branch}{}", name.join("/")),
        values: Some(values(
            &child.id,
            child.size.total,
            child.size.content,
            !data.containers.is_empty(),
        )),
    });
    if !layers {
        return;
    }
    let stem = if last { "   " } else { "│  " };
    let count = data.layers.len();
    for (number, layer) in data.layers.iter().enumerate() {
        lines.push(of_layer(layer, number, count, stem));
    }
}

fn of_layer(layer: &LayerSummary, number: usize, count: usize, stem: &str) -> Line {
    let branch = if number + 1 == count {
        "└─ "
    } else {
        "├─ "
    };
    Line {
        text: format!("{stem}{branch}layer {}", number + 1),
        values: Some([
            human::short_id(&layer.diff_id),
            human::size(layer.size),
            String::new(),
            String::new(),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<ImageSummary> {
        serde_json::from_str(
            r#"[{"Id":"sha256:aaaaaaaaaaaaaaaa","RepoTags":["a:1","a:2"],"Size":2000,"Containers":1,"Manifests":[
                {"ID":"sha256:bbbbbbbbbbbbbbbb","Kind":"image","Available":true,"Size":{"Total":2000,"Content":900},
                 "ImageData":{"Platform":{"os":"linux","architecture":"amd64"},"Containers":["c"],
                  "Layers":[{"DiffID":"sha256:cccccccccccccccc","Size":1500},{"DiffID":"sha256:dddddddddddddddd","Size":500}]}},
                {"ID":"sha256:eeeeeeeeeeeeeeee","Kind":"image","Size":{"Total":0,"Content":0},
                 "ImageData":{"Platform":{"os":"linux","architecture":"arm","variant":"v7"}}},
                {"ID":"sha256:ffff","Kind":"attestation"}]},
               {"Id":"sha256:9999999999999999","RepoTags":[],"Size":5,"Containers":0}]"#,
        )
        .unwrap()
    }

    #[test]
    fn render_shows_names_platforms_and_use() {
        let text = render(&sample(), false, None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("i Info →   U  In Use"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "IMAGE             ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "a:1",
                "a:2               aaaaaaaaaaaa          2kB           900B   U",
                "├─ linux/amd64    bbbbbbbbbbbb          2kB           900B   U",
                "└─ linux/arm/v7   eeeeeeeeeeee           0B             0B",
                "<untagged>        999999999999           5B             0B",
            ]
        );
    }

    #[test]
    fn render_with_layers_lists_them_below() {
        let text = render(&sample(), true, None);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("layer "))
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("│  ├─ layer 1"), "{text}");
        assert!(
            lines[1].contains("dddddddddddd") && lines[1].contains("500B"),
            "{text}"
        );
    }

    #[test]
    fn render_on_a_narrow_terminal_cuts_names() {
        let text = render(&sample(), false, Some(40));
        assert!(text.contains("├─ linux/am…"), "{text}");
    }
}
