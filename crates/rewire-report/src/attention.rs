//! Interactive attention maps over the tokens of a prompt: choose a head and point at a token to
//! see the token's attention.

use maud::{Markup, PreEscaped, html};
use ndarray::Array2;
use serde_json::json;

/// One head's attention map over one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMap {
    /// Name of the map.
    pub name: String,
    /// The prompt's tokens.
    pub tokens: Vec<String>,
    /// Values `[dest, src]`: an attention pattern or its attribution.
    pub values: Array2<f32>,
}

/// Renders several maps, one of which is shown at a time. The color scale ends at the largest
/// absolute value in any map.
pub(crate) fn render(id: &str, maps: &[AttentionMap]) -> Markup {
    let reach = maps.iter().flat_map(|m| m.values.iter()).fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let rounded = |v: &f32| (v / reach * 1e3).round() / 1e3;
    let maps: Vec<_> = maps
        .iter()
        .map(|map| {
            let rows: Vec<Vec<f32>> = map.values.rows().into_iter().map(|r| r.iter().map(rounded).collect()).collect();
            json!({ "name": map.name, "tokens": map.tokens, "values": rows })
        })
        .collect();
    let data = json!({ "reach": reach, "maps": maps }).to_string().replace('<', "\\u003c");
    html! {
        div.attention id=(id) {
            div.heads {}
            div.shown {
                div.grid {}
                div.reading { p.tokens {} p.hint { "Point at a token or a row to see its attention, in the colors of the map." } }
            }
        }
        script { (PreEscaped(format!("rewireAttention({id:?}, {data});"))) }
    }
}

/// The script that draws the maps and responds to the pointer. It needs the script of the page.
pub(crate) const SCRIPT: &str = r#"function rewireAttention(id, data) {
  const box = document.getElementById(id), heads = box.querySelector('.heads');
  const grid = box.querySelector('.grid'), line = box.querySelector('.tokens');
  const color = v => `rgb(var(${v < 0 ? '--opposes' : '--supports'}) / ${Math.min(1, Math.abs(v))})`;
  let shown = 0;
  function look(map, dest) {
    [...line.children].forEach((token, i) => {
      const v = i <= dest ? map.values[dest][i] : 0;
      token.style.background = color(v);
      token.style.color = Math.abs(v) > 0.55 ? 'var(--strong)' : 'inherit';
      token.style.outline = i === dest ? '2px solid var(--text)' : 'none';
      token.title = i <= dest ? rewireNumber(v * data.reach) : '';
    });
  }
  function draw() {
    const map = data.maps[shown], n = map.tokens.length;
    [...heads.children].forEach((button, i) => button.setAttribute('aria-pressed', i === shown));
    line.replaceChildren(...map.tokens.map((token, i) => {
      const span = document.createElement('span');
      span.textContent = token;
      span.onmouseenter = () => look(map, i);
      return span;
    }));
    grid.style.gridTemplateColumns = `max-content repeat(${n}, 18px)`;
    const cells = [];
    map.values.forEach((row, dest) => {
      const name = document.createElement('b');
      name.textContent = map.tokens[dest];
      name.onmouseenter = () => look(map, dest);
      cells.push(name);
      row.forEach((v, src) => {
        const cell = document.createElement('i');
        if (src <= dest) {
          cell.style.background = color(v);
          cell.title = `${map.tokens[dest]} attends to ${map.tokens[src]}: ${rewireNumber(v * data.reach)}`;
        } else cell.className = 'hidden';
        cell.onmouseenter = () => look(map, dest);
        cells.push(cell);
      });
    });
    const corner = document.createElement('b');
    cells.push(corner, ...map.tokens.map(token => {
      const name = document.createElement('b');
      name.className = 'below';
      name.textContent = token;
      return name;
    }));
    grid.replaceChildren(...cells);
    look(map, n - 1);
  }
  data.maps.forEach((map, i) => {
    const button = document.createElement('button');
    button.textContent = map.name;
    button.onclick = () => { shown = i; draw(); };
    heads.append(button);
  });
  draw();
}"#;

/// The style of the maps.
pub(crate) const STYLE: &str = "
.attention { margin: 1rem 0 2rem; }
.attention .heads { display: flex; flex-wrap: wrap; gap: .25rem; margin-bottom: .75rem; }
.attention button { font: inherit; font-size: 13px; padding: .1rem .5rem; border: 1px solid var(--heavy); border-radius: 4px; background: var(--page); color: inherit; cursor: pointer; }
.attention button[aria-pressed=true] { background: rgb(var(--supports)); color: var(--strong); border-color: transparent; }
.attention .shown { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
.attention .grid { display: grid; grid-auto-rows: 18px; gap: 1px; max-width: 100%; overflow-x: auto; }
.attention .grid i { border: 1px solid var(--faint); box-sizing: border-box; }
.attention .grid i.hidden { border-color: transparent; }
.attention .grid b { font-weight: normal; font-size: 11px; line-height: 18px; text-align: right; padding-right: .4rem; white-space: pre; }
.attention .grid b.below { writing-mode: vertical-rl; text-align: left; padding: .3rem 0 0; height: max-content; width: 18px; }
.attention .reading { flex: 1 1 20rem; }
.attention .tokens { font-size: 16px; line-height: 2; }
.attention .tokens span { padding: .15rem .1rem; border-radius: 3px; white-space: pre; cursor: default; }
.attention .hint { color: var(--muted); font-size: 13px; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cannot_end_the_script() {
        let tokens = vec!["<!--<script>".to_owned(), "</script>".to_owned()];
        let map = AttentionMap { name: "L0H0".to_owned(), tokens, values: ndarray::arr2(&[[0.5, 0.0], [-1.0, 0.25]]) };
        let html = render("a", &[map]).into_string();
        assert_eq!(html.matches("<script>").count(), 1);
        assert_eq!(html.matches("</script>").count(), 1);
        assert!(html.contains("\\u003c!--"), "{html}");
        assert!(html.contains("[-1.0,0.25]") && html.contains("\"reach\":1.0"), "{html}");
    }
}
