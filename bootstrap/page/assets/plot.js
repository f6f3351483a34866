// A live plot of the last minutes.
const KEPT = 300;
const LEAST = 60; // seconds, also when there is less to show
const colours = ["#1c7ed6", "#2b8a3e", "#e03131"];

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

// span is what the axis of time shows: the last minute at least, up to now if there is nothing.
function span(from, to) {
  const end = to ?? Date.now() / 1000;
  return [Math.min(from ?? end, end - LEAST), end];
}

export class Plot {
  // series are [name in a point, label]; show prints a value; least is the least top of the
  // axis; with gaps, 0 is no value.
  constructor(place, series, show, least, gaps) {
    this.place = place;
    this.series = series;
    this.show = show;
    this.least = least;
    this.gaps = gaps;
    this.reset([]);
    new ResizeObserver(() => this.drawn && this.drawn.setSize(this.size())).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.draw();
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: 150 };
  }

  reset(points) {
    this.data = [[], ...this.series.map(() => [])];
    for (const p of points) this.take(p);
    if (this.drawn) this.drawn.setData(this.data);
  }

  take(p) {
    this.data[0].push(p.at / 1000);
    // No requests, no percentiles: a gap.
    this.series.forEach(([name], i) => this.data[i + 1].push(this.gaps && !p[name] ? null : p[name]));
    if (this.data[0].length > KEPT) for (const d of this.data) d.shift();
  }

  add(p) {
    if (this.data[0].at(-1) >= p.at / 1000) return; // the history had it
    this.take(p);
    this.drawn.setData(this.data);
    const said = this.series.map(([name, label]) => `${label} ${this.show(p[name])}`);
    this.place.setAttribute("aria-label", `Now: ${said.join(", ")}`);
  }

  draw() {
    if (this.drawn) this.drawn.destroy();
    const style = getComputedStyle(document.documentElement);
    const dim = style.getPropertyValue("--dim"), line = style.getPropertyValue("--line");
    const axis = { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    this.drawn = new uPlot({
      ...this.size(),
      cursor: { y: false },
      scales: {
        x: { range: (_, from, to) => span(from, to) },
        y: { range: (_, low, high) => [0, Math.max(this.least, high || 1) * 1.1] },
      },
      axes: [{ ...axis, space: 80, values: (_, all) => all.map(clock) }, { ...axis, size: 66, values: (_, all) => all.map((v) => (v ? this.show(v) : "0")) }],
      series: [{ label: "at", value: (_, v) => (v == null ? "–" : clock(v)) }, ...this.series.map(([, label], i) => ({ label, stroke: colours[i], width: 1.5, value: (_, v) => (v == null ? "–" : this.show(v)) }))],
    }, this.data, this.place);
  }
}
