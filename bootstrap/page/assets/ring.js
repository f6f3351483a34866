// The ring as a picture: one circle for each replica of the partitions, in the colours of
// their nodes.
const SVG = "http://www.w3.org/2000/svg";
const OUTER = 96, WIDTH = 18, GAP = 2;

function svg(kind, attributes, inside) {
  const e = document.createElementNS(SVG, kind);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (inside !== undefined) e.append(inside);
  return e;
}

// colour of a node by its place: hues far apart for those that are next to each other.
export function colour(i) {
  return `hsl(${(i * 137.508 + 200) % 360} 60% var(--lightness))`;
}

// arc is the part of a circle between two radii, for partition p of q.
function arc(p, q, r, inner) {
  const at = (turn, radius) => `${(radius * Math.sin(turn)).toFixed(3)} ${(-radius * Math.cos(turn)).toFixed(3)}`;
  const from = (2 * Math.PI * p) / q, to = (2 * Math.PI * (p + 1)) / q, mid = (from + to) / 2;
  return `M${at(from, r)}A${r} ${r} 0 0 1 ${at(mid, r)}A${r} ${r} 0 0 1 ${at(to, r)}L${at(to, inner)}A${inner} ${inner} 0 0 0 ${at(mid, inner)}A${inner} ${inner} 0 0 0 ${at(from, inner)}Z`;
}

// drawRing draws who has what, and who is to have it.
export function drawRing(place, legend, r) {
  const q = r.owners.length;
  const moving = Object.keys(r.next).length;
  const picture = svg("svg", { viewBox: "-106 -106 212 212", role: "img", "aria-label": `The ring: ${q} partitions on ${r.nodes.length} nodes, ${moving} moving, ${r.lost.length} lost` });
  r.owners.forEach((owners, p) => {
    owners.forEach((node, i) => {
      const outer = OUTER - i * (WIDTH + GAP);
      const part = svg("path", { d: arc(p, q, outer, outer - WIDTH), "data-node": node });
      part.style.fill = colour(node);
      const filled = (r.filling[p] || []).includes(node) ? ", being filled" : "";
      part.append(svg("title", {}, `Partition ${p}, replica ${i + 1}: ${r.nodes[node]}${filled}`));
      picture.append(part);
    });
    const to = r.next[p];
    if (to || r.filling[p]) {
      const mark = svg("path", { d: arc(p, q, 104, 99), class: "moves" });
      mark.append(svg("title", {}, to ? `Partition ${p} moves to ${to.map((n) => r.nodes[n]).join(", ")}` : `Partition ${p} is being filled`));
      picture.append(mark);
    }
    if (r.lost.includes(p)) picture.append(svg("path", { d: arc(p, q, 104, 99), class: "lost" }, svg("title", {}, `Partition ${p} is lost: no replica has all of it`)));
  });
  picture.append(svg("text", { y: -2 }, `${q} partitions`), svg("text", { y: 9 }, moving ? `${moving} moving` : "nothing moves"));
  place.replaceChildren(picture);
  legend.replaceChildren(...r.nodes.map((name, i) => {
    const li = document.createElement("li"), dot = document.createElement("i");
    dot.style.background = colour(i);
    li.dataset.node = i;
    li.append(dot, name);
    return li;
  }));
}

// markNodes pales what belongs to nodes that cannot be reached.
export function markNodes(places, nodes) {
  for (const part of places.flatMap((place) => [...place.querySelectorAll("[data-node]")])) {
    const n = nodes[part.dataset.node];
    part.classList.toggle("away", !!n && !n.reachable);
  }
}
