/* Draws a chart in its box, without the toolbar that covers titles. */
function rewireDraw(id, figure) {
  Plotly.newPlot(id, figure.data, figure.layout, {displayModeBar: false, responsive: false});
}
