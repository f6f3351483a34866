// What a node shows of its cluster, as it comes. Texts from the cluster only ever become text
// nodes: nothing in a name is markup.
import { drawRing, markNodes } from "/assets/ring.js";
import { Plot } from "/assets/plot.js";

const $ = (id) => document.getElementById(id);

// el makes an element of a kind, with a class and what is in it.
function el(kind, cls, ...inside) {
  const e = document.createElement(kind);
  if (cls) e.className = cls;
  e.append(...inside.map((x) => (x instanceof Node ? x : String(x))));
  return e;
}

function fill(parent, ...children) {
  parent.replaceChildren(...children);
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function count(n) {
  return n >= 100000 ? short.format(n) : number.format(n);
}

// rate of requests: few of them have a fraction.
function rate(n) {
  return n > 0 && n < 10 ? n.toFixed(1) : count(n);
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

function duration(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1000).toPrecision(3)} ms`;
  if (us < 120e6) return `${(us / 1e6).toPrecision(3)} s`;
  return us < 7200e6 ? `${Math.round(us / 60e6)} min` : `${Math.round(us / 3600e6)} h`;
}

// table fills a table with rows. A column is [heading, cell(row), class].
function table(t, columns, rows, none) {
  const head = el("thead", "", el("tr", "", ...columns.map(([h, , c]) => {
    const th = el("th", c === "n" ? "n" : "", h);
    th.scope = "col";
    return th;
  })));
  const body = el("tbody");
  for (const row of rows) {
    body.append(el("tr", "", ...columns.map(([, cell, c]) => {
      const x = cell(row);
      return x instanceof HTMLTableCellElement ? x : el("td", c || "", x);
    })));
  }
  if (!rows.length) {
    const td = el("td", "", none);
    td.colSpan = columns.length;
    body.append(el("tr", "", td));
  }
  fill(t, head, body);
}

function state(n) {
  if (!n.reachable) return el("td", "bad", "unreachable");
  if (!n.answered) return el("td", "bad", "does not answer");
  if (n.slow) return el("td", "warn", "slow");
  return el("td", n.state === "serving" ? "good" : "warn", n.state || "–");
}

function showNodes(nodes) {
  const said = (f) => (n) => (n.answered ? f(n) : "–");
  table($("nodes"), [
    ["Node", (n) => n.name], ["State", state], ["Status", (n) => n.status], ["Zone", (n) => n.zone || "–"], ["Address", (n) => n.address],
    ["First of", (n) => n.partitions, "n"], ["Replica of", (n) => n.replicas, "n"], ["Stored", (n) => bytes(n.bytes), "n"],
    ["Gets/s", said((n) => rate(n.gets)), "n"], ["Puts/s", said((n) => rate(n.puts)), "n"], ["Failed/s", said((n) => rate(n.failed)), "n"],
    ["p50", (n) => duration(n.p50), "n"], ["p99", (n) => duration(n.p99), "n"], ["p99.9", (n) => duration(n.p999), "n"],
    ["In flight", said((n) => count(n.in_flight)), "n"], ["Hints", said((n) => (n.hints ? `${count(n.hints)} (${bytes(n.hint_bytes)})` : "0")), "n"],
    ["Background", said((n) => `${Math.round(n.share * 100)} %`), "n"],
  ], nodes, "No node is known.");
}

function card(value, what, cls) {
  return el("div", "card", el("b", cls, value), el("span", "", what));
}

function showCards(s) {
  const up = s.nodes.filter((n) => n.reachable && n.answered).length;
  const hints = s.nodes.reduce((sum, n) => sum + n.hints, 0);
  fill($("cards"),
    card(`${up} of ${s.nodes.length}`, "nodes answer", up === s.nodes.length ? "good" : "bad"),
    card(rate(s.sum.gets + s.sum.puts), "requests a second"),
    card(rate(s.sum.failed), "failed a second", s.sum.failed ? "bad" : ""),
    card(duration(s.sum.p999), "p99.9, slowest node"),
    card(count(hints), "hints kept", hints ? "warn" : ""),
    card(s.transfers.length + s.waiting, "transfers"),
    card(duration(s.aae.oldest_ms * 1000), "oldest comparison"));
}

function showLists(s) {
  table($("actors"), [
    ["Node", (a) => a.node], ["Actor", (a) => a.name], ["State", (a) => el("td", a.state === "failed" ? "bad" : "", a.state)],
    ["Messages/s", (a) => count(a.rate), "n"], ["Waiting", (a) => count(a.queued), "n"], ["Oldest", (a) => duration(a.oldest_us), "n"],
    ["Restarts", (a) => count(a.restarts), "n"],
  ], s.actors, "No actor has handled a message lately.");
  table($("transfers"), [
    ["Node", (t) => t.node], ["Partition", (t) => t.partition, "n"], ["Kind", (t) => t.kind], ["For", (t) => t.for || "–"],
    ["State", (t) => (t.running ? "runs" : "waits")], ["Records", (t) => count(t.records), "n"], ["Rate", (t) => (t.bytes_per_second ? `${bytes(t.bytes_per_second)}/s` : "–"), "n"],
    ["Left", (t) => (t.remaining ? count(t.remaining) : "–"), "n"], ["Problem", (t) => t.problem || "–", "wrap"],
  ], s.transfers, "Nothing has to be moved.");
  const a = s.aae;
  const facts = [
    ["Pairs of replicas", count(a.pairs)], ["Compared now", count(a.running)], ["Differed the last time", count(a.differed)],
    ["Failed the last time", count(a.failed)], ["Not compared yet", count(a.unverified)], ["Records mended", count(a.mended)],
    ["Longest ago", duration(a.oldest_ms * 1000)],
  ];
  fill($("aae"), ...facts.flatMap(([k, v]) => [el("dt", "", k), el("dd", "", v)]));
}

function showProblems(all) {
  const box = $("problems");
  box.hidden = !all.length;
  const said = [...box.children].map((p) => p.textContent);
  if (said.join("\n") !== all.join("\n")) fill(box, ...all.map((p) => el("p", "", p))); // else it would be read out again
}

const throughput = new Plot($("throughput"), [["gets", "gets"], ["puts", "puts"], ["failed", "failed"]], rate, 1, false);
const latency = new Plot($("latency"), [["p50", "p50"], ["p99", "p99"], ["p999", "p99.9"]], duration, 1000, true);
let latest;

function showSnapshot(s) {
  latest = s;
  document.title = `${s.cluster || "Dynactor"} · ${s.self}`;
  $("where").textContent = s.version ? `${s.cluster}, as ${s.self} sees it · version ${s.version}` : s.self;
  $("live").textContent = "live";
  $("live").className = "on";
  showProblems(s.problems);
  if (!s.version) return;
  showCards(s);
  showNodes(s.nodes);
  showLists(s);
  markNodes([$("ring"), $("legend")], s.nodes);
  throughput.add(s.sum);
  latency.add(s.sum);
}

function showRing(r) {
  drawRing($("ring"), $("legend"), r);
  const names = (list) => (list ? list.map((i) => r.nodes[i]).join(", ") : "–");
  table($("partitions"), [
    ["Partition", (p) => p, "n"], ["Replicas", (p) => names(r.owners[p])], ["Next", (p) => names(r.next[p])], ["Being filled", (p) => names(r.filling[p])],
  ], r.owners.map((_, p) => p), "There is no ring yet.");
  if (latest) markNodes([$("ring"), $("legend")], latest.nodes);
}

// connect takes what the node sends. The browser connects again by itself.
function connect() {
  const events = new EventSource("/api/events");
  const on = (name, f) => events.addEventListener(name, (e) => f(JSON.parse(e.data)));
  on("history", (points) => {
    throughput.reset(points);
    latency.reset(points);
  });
  on("ring", showRing);
  on("snapshot", showSnapshot);
  events.onerror = () => {
    $("live").textContent = "no connection to the node; what is shown is old";
    $("live").className = "off";
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000); // it was refused
  };
}

function showKey(k) {
  const versions = el("table");
  table(versions, [
    ["Version", (v) => el("td", "mono", v.dot)], ["Written by", (v) => v.by], ["At", (v) => v.time], ["Size", (v) => (v.tombstone ? "deleted" : bytes(v.size)), "n"],
    ["SHA-256", (v) => el("td", "mono", v.hash || "–")],
  ], k.versions, "There is none.");
  const copies = el("table");
  const rows = k.nodes.flatMap((n) => (n.copies.length ? n.copies : [null]).map((c) => ({ n, c })));
  table(copies, [
    ["Node", (r) => r.n.node], ["Role", (r) => r.n.role + (r.n.reachable ? "" : " (unreachable)")], ["Copy", (r) => (r.c ? (r.c.for ? `for ${r.c.for}` : "own") : "–")],
    ["State", (r) => {
      const s = r.c ? r.c.state : r.n.answered ? "nothing" : "no answer";
      return el("td", s === "complete" ? "good" : "warn", s);
    }],
    ["Hash", (r) => el("td", "mono", (r.c && r.c.hash) || "–")], ["Versions", (r) => el("td", "mono wrap", r.c ? r.c.versions.map((v) => v.dot).join(" ") : "–")],
  ], rows, "Nobody is responsible for it.");
  const scroll = (t, label) => {
    const d = el("div", "scroll", t);
    d.tabIndex = 0;
    d.setAttribute("role", "region");
    d.setAttribute("aria-label", label);
    return d;
  };
  fill($("found"), el("p", "", `Position ${k.position}, partition ${k.partition}, n=${k.n}.`), ...k.findings.map((f) => el("p", "", f)),
    el("h3", "", "Copies"), scroll(copies, "Copies"), el("h3", "", "Versions"), scroll(versions, "Versions"));
}

$("lookup").addEventListener("submit", async (e) => {
  e.preventDefault();
  const form = new FormData(e.target);
  const query = new URLSearchParams({ bucket: form.get("bucket"), key: form.get("key") });
  fill($("found"), el("p", "", "Asking all nodes…"));
  try {
    const answer = await fetch(`/api/key?${query}`);
    const said = await answer.json();
    if (said.error && !said.nodes) throw new Error(said.error);
    showKey(said);
    if (said.error) $("found").prepend(el("p", "problem", said.error));
  } catch (problem) {
    fill($("found"), el("p", "problem", problem.message));
  }
});

connect();
