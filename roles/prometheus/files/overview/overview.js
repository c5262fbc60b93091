// Grafana's dashboards on a page that asks Prometheus itself.
// What it shows is in its address, as in Grafana: #/d/UID?var-instance=HOST&from=now-6h&to=now
import { make } from "./charts.js";
import * as kinds from "./panels.js";
import { withUnit } from "./units.js";

const PLACE = location.origin + location.pathname; // without the password, where the address has one
const API = new URL("../prometheus/api/v1/", PLACE);
const SCRAPE = Number(document.documentElement.dataset.scrapeSeconds);
const UNITS = { m: 60e3, h: 3600e3, d: 86400e3 };
const [POINTS, AT_ONCE, TRIES] = [240, 6, 8];
const [main, state, choices, made] = ["panels", "state", "choices", "made"].map((id) => document.getElementById(id));

let dashboards = null;
let current = null; // what is shown

// Nobody answers, or somebody else than Prometheus.
class Silence extends Error {}

async function ask(path, parameters, signal) {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(new URL(`${path}?${new URLSearchParams(parameters)}`, API), { signal }).catch((error) => {
      throw signal.aborted ? error : new Silence(error.message);
    });
    if (answer.status === 401) throw new Silence("the password is not the right one; load this page again");
    if (answer.status === 429 && tries < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000)); // Nginx lets nobody ask, or guess passwords, too often
      continue;
    }
    const told = await answer.json().catch(() => ({}));
    if (told.status === "success") return told.data;
    throw told.error ? new Error(told.error) : new Silence(`the answer is ${answer.status}, and not one of Prometheus's`);
  }
}

const number = (text) => (Number.isFinite(Number(text)) ? Number(text) : null);

// What the address says: which dashboard, of which host, from when to when. What it does not say is as the dashboard has it.
function chosen() {
  const [path, query] = location.hash.slice(1).split("?");
  const told = new URLSearchParams(query);
  const dashboard = dashboards.find(({ uid }) => path === `/d/${uid}`) ?? dashboards[0];
  const [variable] = dashboard.templating.list;
  const isTime = (text) => /^(now(-\d+[mhd])?|\d+)$/.test(text);
  const times = isTime(told.get("from")) && isTime(told.get("to")) ? { from: told.get("from"), to: told.get("to") } : dashboard.time;
  return { dashboard, variable, host: (variable && told.get(`var-${variable.name}`)) ?? "", ...times };
}

function moment(text) {
  const [, count, unit] = /^now(?:-(\d+)(.))?$/.exec(text) ?? [];
  return text.startsWith("now") ? Date.now() - (unit ? count * UNITS[unit] : 0) : Number(text);
}

// One dashboard and one time, and what Prometheus says of it.
class View {
  constructor() {
    const { dashboard, variable, host, from, to } = chosen();
    const now = moment(to);
    const length = Math.max(now - moment(from), 60e3);
    const step = 1000 * Math.max(SCRAPE, Math.ceil(length / POINTS / 1000));
    const [start, end] = [now - length, now].map((time) => Math.floor(time / step) * step);
    const stop = new AbortController();
    Object.assign(this, { dashboard, variable, host, from, to, now, start, end, step, stop, signal: stop.signal, marks: [] });
  }

  // The dashboards' queries have two variables: the host, and how long rates are over, which is as in Grafana.
  query({ expr }) {
    const rate = `${Math.max(this.step / 1000 + SCRAPE, 4 * SCRAPE)}s`;
    const quoted = JSON.stringify(this.host).slice(1, -1);
    return expr.replaceAll("$__rate_interval", rate).replaceAll(`$${this.variable?.name}`, () => quoted);
  }

  ask(path, parameters) {
    return ask(path, parameters, this.signal);
  }

  async instant(target) {
    const { result } = await this.ask("query", { query: this.query(target), time: this.now / 1000 });
    return result.map(({ metric, value }) => ({ labels: metric, value: number(value[1]) }));
  }

  async over(target) {
    const [start, end, step] = [this.start, this.end, this.step].map((each) => each / 1000);
    const { result } = await this.ask("query_range", { query: this.query(target), start, end, step });
    return result.map(({ metric, values }) => {
      const all = Array(Math.round((end - start) / step) + 1).fill(null);
      for (const [time, value] of values) all[Math.round((time - start) / step)] = number(value);
      return { labels: metric, values: all };
    });
  }

  // Releases: the value of each says when it was.
  async findMarks() {
    for (const { target, textFormat, tagKeys } of this.dashboard.annotations.list) {
      for (const { labels, values } of await this.over(target)) {
        const where = this.host ? "" : `${labels.app} `;
        const [short, text] = [where + labels[tagKeys], where + kinds.filled(textFormat, labels)];
        for (const time of new Set(values.filter(Boolean))) this.marks.push({ time, short, text });
      }
    }
    this.marks.sort((one, other) => one.time - other.time);
  }

  // Tell of one moment in all plots, or of now again.
  point(time) {
    for (const plot of main.querySelectorAll(".plot")) plot.point(time);
  }

  // Show something else. The browser's way back leads back.
  show(changes) {
    const { dashboard, host, from, to } = { ...this, ...changes };
    const variables = dashboard.templating.list.map(({ name }) => [`var-${name}`, host]);
    const times = [["from", from], ["to", to]].map(([name, time]) => [name, typeof time === "number" ? Math.round(time) : time]);
    location.hash = `/d/${dashboard.uid}?${new URLSearchParams([...variables, ...times])}`;
  }

  // Show a time that is so many times as long, and later by so much of it, but never what is to come.
  look(times, later = 0) {
    const length = this.end - this.start;
    const half = (length * times) / 2;
    const middle = Math.min((this.start + this.end) / 2 + length * later, Date.now() - half);
    this.show({ from: middle - half, to: middle + half });
  }
}

function verdict(text, colour, ...more) {
  state.dataset.colour = colour;
  state.replaceChildren(make("strong", {}, text), ...more);
  document.title = `${current?.host || "All hosts"}: ${text}`;
}

// What is wrong, and what is about to be; the first thing of the page.
async function tellAlerts(view, hosts) {
  const { alerts } = await view.ask("alerts", {});
  const own = alerts.filter(({ labels }) => !view.host || !labels.instance || labels.instance === view.host);
  const firing = own.filter((alert) => alert.state === "firing");
  const rows = [...firing, ...own.filter((alert) => alert.state === "pending")].map(({ state: how, labels, annotations, activeAt }) => {
    const since = withUnit(Math.max(0, Math.round((Date.now() - Date.parse(activeAt)) / 1000)), "s");
    const told = [labels.severity, labels.instance, `for ${since}`].filter(Boolean).join(", ");
    const name = make("b", {}, how === "firing" ? labels.alertname : `${labels.alertname} is about to fire`);
    const [summary, remedy] = [annotations.summary ?? "", annotations.remedy ?? ""];
    return make("div", { className: how }, name, make("span", {}, summary), make("em", {}, told), make("code", {}, remedy));
  });
  if (firing.length) verdict(firing.length > 1 ? `${firing.length} alerts fire` : "1 alert fires", "red", ...rows);
  else if (!hosts.length) verdict("Prometheus has not measured any app in this time", "orange");
  else if (view.host && !hosts.includes(view.host)) verdict("Prometheus has not measured this host in this time", "orange");
  else if (rows.length) verdict("Nothing fires, but something is about to", "orange", ...rows);
  else verdict("Nothing is wrong", "green");
}

// The hosts that there are to choose from, as the dashboards' variable says.
async function tellHosts(view) {
  const [{ query }] = dashboards.flatMap(({ templating }) => templating.list);
  const [, metric, label] = /^label_values\((.+), (\w+)\)$/.exec(query.query);
  const hosts = await view.ask(`label/${label}/values`, { "match[]": metric, start: view.start / 1000, end: view.now / 1000 });
  const names = [...new Set([...hosts, view.host])].filter(Boolean).sort(kinds.order);
  choices.host.replaceChildren(...["", ...names].map((name) => make("option", { value: name }, name || "All hosts")));
  choices.host.value = view.host;
  choices.range.value = view.to === "now" ? view.from : "";
  if (choices.range.selectedIndex < 0) choices.range.value = "";
  return hosts;
}

// Put the parts of a panel in its place, and those away that were there.
function put(section, parts) {
  for (const graph of section.graphs ?? []) graph.destroy();
  section.lastChild.replaceChildren(...parts);
  section.graphs = parts.flatMap((part) => part.draw?.() ?? []);
}

function empty() {
  for (const section of main.querySelectorAll("section")) put(section, []);
  main.replaceChildren();
}

// Make a place for each panel, where there is none yet: plots that are there stay until new ones are.
function layOut({ uid, panels }) {
  if (main.dataset.uid === uid && main.children.length) return;
  empty();
  main.dataset.uid = uid;
  const places = panels.map(({ type, title, description, gridPos }) => {
    if (type === "row") return make("h2", {}, title);
    const section = make("section", { className: type }, make("h3", { title: description }, title), make("div"));
    section.style.setProperty("--width", gridPos.w);
    return section;
  });
  main.append(...places);
}

async function fill(view, panel, section) {
  const parts = await kinds[panel.type](view, panel, section).catch((error) => {
    if (view.signal.aborted || error instanceof Silence) throw error;
    return [make("p", { className: "failed" }, `Prometheus does not answer this: ${error.message}`)];
  });
  if (!view.signal.aborted) put(section, parts);
}

async function show() {
  current?.stop.abort();
  main.ariaBusy = "true";
  let view;
  try {
    const files = ["fleet", "app"].map((name) => fetch(new URL(`dashboards/${name}.json`, PLACE)));
    dashboards ??= await Promise.all((await Promise.all(files)).map((answer) => answer.json()));
    view = current = new View();
    const hosts = await tellHosts(view);
    if (view.variable && !view.host && hosts.length) return view.show({ host: hosts[0] });
    await tellAlerts(view, hosts);
    await view.findMarks();
    layOut(view.dashboard);
    const jobs = view.dashboard.panels.map((panel, index) => [panel, main.children[index]]).filter(([{ type }]) => type !== "row");
    const work = async () => {
      for (let job = jobs.shift(); job; job = jobs.shift()) await fill(view, ...job);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    made.textContent = `asked ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    if (view?.signal.aborted) return;
    view?.stop.abort(); // what is still asked has no place any more
    empty(); // nothing is to look as if it told of now
    const says = error instanceof Silence ? "Prometheus does not answer" : "This page has failed";
    verdict(says, "red", make("p", {}, `Nothing is known of any app: ${error.message}`));
  }
  main.ariaBusy = "false";
}

// Not while somebody draws a zoom, or looks at another time.
const refresh = () => document.hidden || main.matches(":active") || current?.to !== "now" || show();

choices.host.onchange = () => current.show({ host: choices.host.value, dashboard: dashboards[choices.host.value ? 1 : 0] });
choices.range.onchange = () => current.show({ from: choices.range.value, to: "now" });
choices.earlier.onclick = () => current.look(1, -0.5);
choices.later.onclick = () => current.look(1, 0.5);
choices.out.onclick = () => current.look(2);
choices.in.onclick = () => current.look(0.5);
window.onhashchange = show;
document.onvisibilitychange = refresh;
matchMedia("(prefers-color-scheme: dark)").onchange = show;
setInterval(refresh, 60e3);
show();
