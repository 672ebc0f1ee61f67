/* The reader's color scheme. Paper is always light. */
const rewireScheme = matchMedia('(prefers-color-scheme: dark)');
const rewireFigures = [];
/* Colors on a dark page, for colors that are chosen for a light one. */
const REWIRE_DARK = {
  '#b2182b': '#ff7a70', '#ef8a62': '#9c4a40', '#f7f7f7': '#262b33', '#67a9cf': '#3d6c96', '#2166ac': '#6db3f5',
  '#1b7837': '#63c57c', '#e08214': '#f0a04b', '#762a83': '#c993d6', '#01665e': '#52bdb1', '#c51b7d': '#f283c0',
  '#8c510a': '#d2a263', '#4d4d4d': '#c4c8d0', '#555555': '#aeb4be', '#999999': '#7d8590',
  'Viridis': [[0, '#7d6fd1'], [0.35, '#3f9fb5'], [0.7, '#67cc6d'], [1, '#fde725']],
};

/* Draws a chart in its box, without the toolbar that covers titles. */
function rewireDraw(id, figure) {
  rewireFigures.push([id, figure]);
  rewireShow(id, figure, rewireScheme.matches, Plotly.newPlot);
}

function rewireShow(id, figure, dark, plot) {
  const [text, grid, zero] = dark ? ['#d7dae0', '#363c46', '#6b7380'] : ['#1a1a1a', '#e4e6ea', '#777777'];
  const clear = 'rgba(0,0,0,0)', axis = {color: text, gridcolor: grid, zerolinecolor: zero};
  const layout = {paper_bgcolor: clear, plot_bgcolor: clear, font: {color: text}, xaxis: axis, yaxis: axis};
  const json = JSON.stringify(figure.data).replace(
    /"(#[0-9a-f]{6}|Viridis)"/g, (whole, name) => dark && REWIRE_DARK[name] ? JSON.stringify(REWIRE_DARK[name]) : whole);
  plot(id, JSON.parse(json), {...figure.layout, template: {layout}}, {displayModeBar: false, responsive: false});
}

function rewireRecolor(dark) {
  rewireFigures.forEach(([id, figure]) => rewireShow(id, figure, dark, Plotly.react));
}
rewireScheme.addEventListener('change', () => rewireRecolor(rewireScheme.matches));
addEventListener('beforeprint', () => rewireScheme.matches && rewireRecolor(false));
addEventListener('afterprint', () => rewireScheme.matches && rewireRecolor(true));

/* Returns a number as the tables print it. */
function rewireNumber(value) {
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(4);
}

/* Returns the number that a cell begins with (0.5, 1e-7, 12%, < 0.001, 0.3 ± 0.1, 4 of 9), 0 for
   "below 0.01%", or NaN. */
function rewireCell(text) {
  const found = text.replace(/[−–](?=[\d.])/g, '-').match(/^\s*([<>≈~]|below)?\s*([+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w.])/i);
  if (!found) return NaN;
  const number = parseFloat(found[2].replaceAll(',', ''));
  return found[1] === 'below' ? 0 : found[1] === '<' ? number - 1e-9 : number;
}

/* Sorts a table by the column whose header is clicked: numbers first largest, text first by
   alphabet. A second click reverses the order. Cells without a value stay last. */
function rewireSortable(table) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) return;
  headers.forEach((header, column) => {
    const button = document.createElement('button');
    button.append(...header.childNodes);
    header.append(button);
    button.onclick = () => {
      const rows = [...body.rows], text = row => (row.cells[column]?.textContent ?? '').trim();
      const blank = row => ['', '-', '–', '—', 'NaN'].includes(text(row));
      const filled = rows.filter(row => !blank(row));
      const numeric = filled.every(row => !isNaN(rewireCell(text(row))));
      const compare = numeric ? (a, b) => rewireCell(text(a)) - rewireCell(text(b))
        : (a, b) => text(a).localeCompare(text(b), undefined, {numeric: true});
      const now = header.getAttribute('aria-sort');
      const up = now ? now === 'descending' : !numeric;
      headers.forEach(other => other.removeAttribute('aria-sort'));
      header.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      filled.sort((a, b) => up ? compare(a, b) : compare(b, a));
      body.append(...filled, ...rows.filter(blank));
    };
  });
}
addEventListener('DOMContentLoaded', () => document.querySelectorAll('table').forEach(rewireSortable));
