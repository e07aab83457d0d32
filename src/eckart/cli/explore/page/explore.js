"use strict";
const RATES = [0, .05, .1, .15, .2, .25, .3, .35, .4, .45, .5, .55, .6, .65, .7, .75, .8, .85, .9, .92, .94, .95, .96, .97, .98, .985, .99, .995];
const CUTS = { smallest: "the smallest singular values", largest: "the largest (control)", random: "as many at random (control)", drop: "the whole part (control)" };
const SHOWN = 200, PAUSE = 180;
const tab = Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-");
const $ = id => document.getElementById(id);
const asked = {};
let about, edits = [], look, looked, waiting, clock; // `looked`: the edits of `look`, while it is of what is chosen

// Whatever comes from data is set as text, never as HTML.
function el(name, has = {}, ...inside) {
  const svg = ["svg", "path", "line", "circle", "text"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(has)) key in made && !svg && !key.includes("-") ? made[key] = value : made.setAttribute(key, value);
  made.append(...inside);
  return made;
}
const fill = (id, ...inside) => $(id).replaceChildren(...inside);
const share = value => value.toFixed(4);
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const text = edit => `${edit.layer}:${edit.part}:${edit.cut === "drop" ? "drop" : edit.rate + (edit.cut === "smallest" || !edit.rate ? "" : ":" + edit.cut)}`;
const chosen = () => edits.filter(edit => edit.cut === "drop" || edit.rate > 0).map(text);

async function ask(what, more = {}) {
  asked[what]?.abort();
  const control = asked[what] = new AbortController();
  const answer = await fetch(`ask/${what}`, { method: "POST", signal: control.signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ tab, ...more }) })
    .catch(error => { throw stopped(error) ? error : new Error("eckart does not answer: it was ended. The same command goes on with this run, at a new address."); });
  const said = await answer.json();
  if (answer.status === 409) throw new DOMException("stopped", "AbortError");
  if (!answer.ok) throw new Error(said.error);
  return said;
}
const stopped = error => error.name === "AbortError";

function busy(what) {
  clearInterval(clock);
  document.body.classList.toggle("busy", !!what);
  $("status").className = "";
  $("status").textContent = what || "";
  if (!what) return;
  const begun = Date.now();
  clock = setInterval(async () => {
    const at = await ask("progress").catch(() => ({}));
    const far = at.rows ? `, ${at.done.toLocaleString("en")} of ${at.rows.toLocaleString("en")} (${at.what})` : "";
    if (document.body.classList.contains("busy")) $("status").textContent = `${what} ${Math.round((Date.now() - begun) / 1000)} s${far}`;
  }, 1000);
}
function wrong(error) {
  if (stopped(error)) return;
  busy("");
  $("status").className = "wrong";
  $("status").textContent = error.message;
}

// The form of edits.
function parts(layer) { return ["mlp", "attn", "all", ...about.layers[layer]]; }
function form() {
  fill("edits", ...edits.map((edit, number) => {
    const id = name => `${name}-${number}`, several = ["attn", "mlp", "all"].includes(edit.part);
    const legend = el("legend", {}, `Edit ${number + 1}`);
    const rate = el("input", { type: "number", id: id("exact"), min: 0, max: .999, step: "any", value: edit.rate, "aria-label": `Edit ${number + 1}: rate, exactly` });
    const slide = el("input", { type: "range", id: id("rate"), min: 0, max: RATES.length - 1, step: 1, value: nearest(edit.rate), "aria-valuetext": String(edit.rate) });
    slide.oninput = () => { edit.rate = RATES[slide.value]; rate.value = edit.rate; slide.setAttribute("aria-valuetext", edit.rate); soon(); };
    rate.oninput = () => { if (!(rate.value >= 0 && rate.value < 1)) return outdated("A rate is at least 0 and less than 1."); edit.rate = Number(rate.value); slide.value = nearest(edit.rate); slide.setAttribute("aria-valuetext", edit.rate); soon(); };
    const layer = el("output", { id: id("layer-is") }, String(edit.layer));
    const where = el("input", { type: "range", id: id("layer"), min: 0, max: about.layers.length - 1, step: 1, value: edit.layer });
    where.oninput = () => { edit.layer = Number(where.value); layer.value = edit.layer; soon(); };
    const part = pick(id("part"), Object.fromEntries(parts(edit.layer).map(name => [name, { mlp: "the MLP", attn: "the attention", all: "all matrices" }[name] || `matrix ${name}`])), edit.part);
    part.onchange = () => { edit.part = part.value; if (edit.cut === "drop" && !["attn", "mlp", "all"].includes(edit.part)) edit.cut = "smallest"; form(); $(id("part")).focus(); soon(); };
    const kinds = Object.fromEntries(Object.entries(CUTS).filter(([name]) => name !== "drop" || (several && about.droppable)));
    const cut = pick(id("cut"), kinds, edit.cut);
    cut.onchange = () => { edit.cut = cut.value; form(); $(id("cut")).focus(); soon(); };
    const gone = el("button", { type: "button", id: id("remove") }, `Remove edit ${number + 1}`);
    gone.onclick = () => { edits.splice(number, 1); form(); $("add").focus(); soon(); };
    return el("fieldset", {}, legend,
      el("div", { className: "slide" }, el("label", { htmlFor: id("layer") }, "Layer"), where, layer),
      el("label", { htmlFor: id("part") }, "Part"), part,
      el("label", { htmlFor: id("cut") }, "What goes"), cut,
      ...edit.cut === "drop" ? [] : [el("div", { className: "slide" }, el("label", { htmlFor: id("rate") }, "Rate: the share of the rank that goes"), slide, rate)],
      ...edits.length > 1 ? [gone] : []);
  }));
}
const nearest = rate => RATES.reduce((best, value, at) => Math.abs(value - rate) < Math.abs(RATES[best] - rate) ? at : best, 0);
function pick(id, options, value) {
  const made = el("select", { id }, ...Object.entries(options).map(([name, words]) => el("option", { value: name }, words)));
  made.value = value;
  return made;
}

// A look: soon, once nothing has moved for a moment; what was asked of the edits before is stopped.
function soon() {
  outdated("Reading…");
  waiting = setTimeout(see, PAUSE);
}
function outdated(why) {
  clearTimeout(waiting);
  for (const what of ["look", "guard", "text"]) asked[what]?.abort();
  looked = null;
  busy(""); current(false); sealed();
  for (const id of ["verdict", "brief"]) $(id).textContent = why;
  for (const id of ["command", "python"]) $(id).textContent = "";
}
function current(is) {
  document.body.classList.toggle("old", !is);
  for (const button of document.querySelectorAll("[data-copy]")) button.disabled = !is;
}
async function see() {
  const now = chosen(), begun = Date.now();
  busy("Reading…");
  try {
    look = await ask("look", { edits: now });
  } catch (error) {
    if (!stopped(error)) outdated("These edits were not read.");
    return wrong(error);
  }
  looked = now;
  busy(""); current(true);
  $("status").textContent = `Read in ${((Date.now() - begun) / 1000).toFixed(1)} s.`;
  accuracy(); confusion(); spectra(); turned(); times(); sealed();
  $("command").textContent = look.elsewhere.command;
  $("python").textContent = look.elsewhere.python;
  guard(now);
}

function accuracy() {
  const before = look.unpruned || look, clipped = look.unpruned && look;
  const bounds = [before.interval, ...clipped ? [look.interval] : []].flat().concat(before.majority_rate);
  const low = Math.max(0, Math.floor(20 * Math.min(...bounds)) / 20), high = Math.min(1, Math.ceil(20 * Math.max(...bounds)) / 20);
  const at = value => `${100 * (value - low) / (high - low)}%`;
  const line = (name, found) => {
    const [from, to] = found.interval, bar = el("i"), mark = el("u"), most = el("s");
    Object.assign(bar.style, { left: at(from), width: `calc(${at(to)} - ${at(from)})` });
    mark.style.left = at(found.accuracy); most.style.left = at(before.majority_rate);
    return el("div", { className: `interval ${name}` }, el("b", {}, name), el("div", { className: "track", "aria-hidden": "true" }, most, bar, mark),
      el("span", { className: "value" }, `${share(found.accuracy)}, 95% interval ${share(from)} to ${share(to)}`));
  };
  const says = look.verdict ? `${look.verdict[0].toUpperCase()}${look.verdict.slice(1)}: ${look.gain}` : "Nothing is clipped";
  fill("verdict", el("b", {}, says), ...look.sure ? [el("br"), el("span", { className: "soft" }, `${look.sure}.`)] : []);
  $("caution").textContent = look.caution;
  fill("notes", ...look.notes.map(note => el("li", {}, note)));
  $("brief").textContent = clipped ? `${share(look.accuracy)} clipped, ${share(before.accuracy)} unpruned` : `${share(before.accuracy)} unpruned`;
  fill("intervals", line("unpruned", before), ...clipped ? [line("clipped", look)] : [],
    el("div", { className: "axis", "aria-hidden": "true" }, el("span", {}, low.toFixed(2)), el("span", {}, high.toFixed(2))),
    el("p", { className: "soft" }, `Dotted: always the most frequent label, ${share(before.majority_rate)}.`));
  const tried = look.looks.filter(one => one.edits.length).length;
  $("looks").textContent = tried ? `${counted(tried, "edit")} looked at on these ${counted(look.n, "row")} of validation. The best of many looks better than it is: a choice made by looking wants a sealed test.` : "No edit was looked at yet. Move a rate.";
}
function confusion() {
  const table = (name, found) => el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": `${name}: what is taken for what` }, el("table", {}, el("caption", {}, name),
    el("thead", {}, el("tr", {}, el("td", {}), ...look.labels.map(label => el("th", { scope: "col" }, label)))),
    el("tbody", {}, ...found.confusion.map((line, row) => el("tr", {}, el("th", { scope: "row" }, look.labels[row]), ...line.map(count => {
      const cell = el("td", {}, String(count));
      cell.style.setProperty("--share", count / Math.max(1, line.reduce((a, b) => a + b)));
      return cell;
    }))))));
  fill("matrices", table("unpruned", look.unpruned || look), ...look.unpruned ? [table("clipped", look)] : []);
}
function spectra() {
  const more = look.matrices - look.cuts.length;
  $("cutting").textContent = look.matrices ? `Singular values of each edited matrix, over the largest, on a logarithmic scale. What goes is orange.${more ? ` ${more} more are not drawn.` : ""}` : "Nothing: move a rate, and the singular values of each edited matrix stand here with the cut.";
  fill("cuts", ...look.cuts.map(cut => {
    const [width, height, left] = [240, 120, 34], floor = Math.min(-1, Math.floor(Math.log10(Math.max(1e-6, Math.min(...cut.values)))));
    const x = place => left + (width - left - 4) * (place + .5) / cut.full, y = value => 8 + (height - 30) * Math.min(1, Math.log10(Math.max(value, 1e-6)) / floor);
    const bars = kept => cut.places.map((place, at) => cut.kept[at] === kept ? `M${x(place).toFixed(1)} ${height - 22}V${y(cut.values[at]).toFixed(1)}` : "").join("");
    const thick = 1.2 * (width - left) / cut.places.length;
    const line = has => el("path", { "stroke-width": thick, ...has });
    const edge = cut.kept.findIndex((kept, at) => at && kept !== cut.kept[at - 1]), once = cut.kept.filter((kept, at) => at && kept !== cut.kept[at - 1]).length === 1;
    const at = edge > 0 && once ? x(cut.kept[0] ? cut.rank - .5 : cut.full - cut.rank - .5) : null;
    const says = `${cut.name} of layer ${cut.layer}, ${cut.shape.join(" × ")}`, keeps = `keeps rank ${cut.rank} of ${cut.full}; ${(100 * cut.gone_energy).toFixed(2)}% of the energy goes`;
    return el("figure", {}, el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Spectrum of ${says}: ${keeps}` },
      el("line", { class: "frame", x1: left, x2: width, y1: height - 21.5, y2: height - 21.5 }),
      line({ class: "kept", d: bars(true) }), line({ class: "gone", d: bars(false) }),
      ...at === null ? [] : [el("line", { class: "cut", x1: at, x2: at, y1: 2, y2: height - 22 })],
      el("text", { x: left - 6, y: 13, "text-anchor": "end" }, "1"), el("text", { x: left - 6, y: height - 22, "text-anchor": "end" }, `1e${floor}`),
      el("text", { x: left, y: height - 7 }, "1"), el("text", { x: width - 2, y: height - 7, "text-anchor": "end" }, String(cut.full))),
      el("figcaption", {}, el("b", {}, says), el("br"), keeps));
  }));
}
function turned() {
  const [kind, label, words] = [$("kind").value, $("label").value, $("words").value.toLowerCase()];
  const all = look?.turned || [], found = all.filter(row => (!kind || row.kind === kind) && (!label || row.label === label) && row.text.toLowerCase().includes(words));
  const of = name => all.filter(row => row.kind === name).length;
  $("count").textContent = all.length ? `${of("fixed")} fixed, ${of("broken")} broken, ${of("still wrong")} wrong otherwise than before. ${found.length > SHOWN ? `The first ${SHOWN} of ${found.length}` : counted(found.length, "row")} shown.` : "No prediction turned.";
  fill("turned", ...found.slice(0, SHOWN).map(row => el("li", {}, el("span", { className: `tag ${row.kind}` }, row.kind),
    el("span", { className: "turn" }, `${row.before} → ${row.after}; right: ${row.label}`), el("p", {}, row.text))));
  $("turned").tabIndex = found.length ? 0 : -1;
}
async function guard(now) {
  if (!now.length) return fill("guarded", el("p", { className: "soft" }, "Nothing is clipped."));
  const { text, tasks } = about.guard, read = [`the guard's text '${text}'`, ...tasks.map(name => `task '${name}'`)];
  fill("guarded", el("p", { className: "soft" }, `Reading ${read.join(" and ")}…`));
  try {
    const found = await ask("guard", { edits: now });
    if (!found.text) return fill("guarded", el("p", { className: "soft" }, "Nothing is clipped."));
    fill("guarded", el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "The guard's numbers" }, el("table", {},
      el("thead", {}, el("tr", {}, el("td", {}), ...["unpruned", "clipped", ...tasks.length ? ["verdict"] : [], "change, 95% interval"].map(name => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...harms(found, tasks.length).map(([name, ...cells]) => el("tr", {}, el("th", { scope: "row" }, name), ...cells.map(cell => el("td", {}, cell))))))),
      el("p", { id: "harm" }, found.says),
      el("p", { className: "soft" }, "KL is how far the next-token predictions moved from the unpruned model's (0: not at all); perplexity times 1 is as good a reader of plain text as before."));
  } catch (error) { if (!stopped(error)) fill("guarded", el("p", { className: "wrong" }, error.message)); }
}
function harms({ text, tasks }, verdicts) {
  const none = verdicts ? [""] : [], number = (value, digits) => value == null ? "–" : Math.abs(value) < 1e6 ? value.toFixed(digits) : value.toExponential(digits);
  const points = value => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(2)}`, range = (bounds, write) => bounds ? `\n${bounds.map(write).join(" to ")}` : "";
  const lines = [[`${text.name}: perplexity`, number(text.unpruned, 2), number(text.clipped, 2), ...none, `× ${number(text.ratio, 4)}${range(text.ratio_interval, value => number(value, 4))}`],
    ["KL, nats a token", "–", "–", ...none, `${number(text.divergence, 4)}${range(text.divergence_interval, value => number(value, 4))}`]];
  return [...text.divergence === undefined ? [] : lines, ...tasks.map(({ task, unpruned, clipped, change, verdict }) =>
    [`${task}: accuracy`, share(unpruned), clipped === null ? "–" : share(clipped), verdict, change ? `${points(change.difference)} points${range(change.interval, points)}` : "–"])];
}
function times() {
  const [width, height, left, foot] = [640, 190, 44, 34], layers = about.layers.length, first = look.looks.find(one => !one.edits.length);
  const dots = look.looks.filter(one => one.edits.length), most = Math.max(.1, ...dots.map(one => one.seconds), first?.seconds || 0);
  const x = layer => left + (width - left - 12) * layer / layers, y = seconds => height - foot - (height - foot - 12) * seconds / most;
  $("timed").textContent = `Seconds of each look by its lowest layer, on this machine: layers below it are read once and kept. Dashed: a whole pass${first ? `, ${first.seconds.toFixed(1)} s,` : ""} less these layers.`;
  fill("times", el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Seconds of each look by its lowest layer" },
    el("line", { class: "frame", x1: left, x2: width, y1: height - foot, y2: height - foot }), el("line", { class: "frame", x1: left, x2: left, y1: 8, y2: height - foot }),
    ...first ? [el("path", { class: "expected", d: `M${x(0)} ${y(first.seconds)}L${x(layers)} ${y(0)}` })] : [],
    ...dots.map(one => el("circle", { class: "dot", cx: x(one.layer), cy: y(one.seconds), r: 4 })),
    el("text", { x: left - 6, y: 18, "text-anchor": "end" }, `${most.toFixed(1)} s`), el("text", { x: left - 6, y: height - foot, "text-anchor": "end" }, "0"),
    el("text", { x: left, y: height - foot + 16 }, "layer 0"), el("text", { x: x(layers - 1), y: height - foot + 16, "text-anchor": "end" }, `layer ${layers - 1}`)));
}
function sealed() {
  const { tested, begun, looked_at_before: before } = about, earlier = before ? [el("p", { id: "before" }, before)] : [];
  $("test").disabled = !!tested || !testable().length;
  $("test").textContent = begun.length && !tested ? "Go on with this test" : "Test this choice, once";
  if (tested) return fill("sealed", ...tested.says.map(said => el("p", {}, said)), ...earlier, el("p", { className: "soft" }, "eckart report ", tested.run));
  if (begun.length) return fill("sealed", el("p", {}, `The test of ${begun.join(", ")} was begun, and stopped before its end. It can go on; no other choice is tested in this run.`), ...earlier);
  const whole = look?.looks.find(one => !one.edits.length), minutes = whole ? 2 * whole.seconds * about.test_rows / (look.n * 60) : 0;
  fill("sealed", el("p", {}, `${counted(about.test_rows, "test row")} are kept back. They can be looked at once, for one choice${minutes > 1 ? `: about ${Math.round(minutes)} minutes` : ""}.`), ...earlier);
}
// A test that was begun is of its own choice; any other is of what was looked at last.
const testable = () => about.begun.length ? about.begun : looked || [];

async function main() {
  about = await ask("about");
  document.title = `${about.model} on ${about.task}: eckart explore`;
  $("title").textContent = `${about.model} on ${about.task}`;
  $("about").textContent = `${about.rows < about.all_rows ? `The first ${about.rows.toLocaleString("en")} of ${counted(about.all_rows, "validation row")}` : counted(about.rows, "validation row")}; ${about.shots ? `${counted(about.shots, "demonstration")}, seed ${about.seed}` : "no demonstrations"}; ${about.dtype}; kept in ${about.run}`;
  $("label").append(...about.labels.map(label => el("option", { value: label }, label)));
  fill("fields", ...about.fields.map((name, at) => el("label", {}, name, el("textarea", { name, id: `field-${at}` }))));
  $("texts").hidden = !about.fields.length;
  if (!about.fields.length) fill("answers", el("p", { className: "soft" }, "This task does not say how a new text becomes a prompt."));
  const fresh = () => ({ layer: about.layers.length - 1, part: "mlp", cut: "smallest", rate: 0 });
  edits = [fresh()];
  form(); sealed();
  $("add").onclick = () => {
    const used = new Set(edits.map(edit => edit.layer)), free = about.layers.map((_, at) => at).reverse().find(at => !used.has(at));
    edits.push({ ...fresh(), layer: free ?? 0 });
    form(); $(`rate-${edits.length - 1}`).focus(); soon();
  };
  $("clear").onclick = () => { edits = [fresh()]; form(); soon(); };
  for (const id of ["kind", "label", "words"]) $(id).oninput = turned;
  for (const id of ["edits", "filters"]) $(id).onsubmit = event => event.preventDefault();
  for (const button of document.querySelectorAll("[data-copy]")) button.onclick = async () => {
    const old = button.textContent;
    await navigator.clipboard.writeText($(button.dataset.copy).textContent).then(() => button.textContent = "Copied", () => getSelection().selectAllChildren($(button.dataset.copy)));
    setTimeout(() => button.textContent = old, 1500);
  };
  $("texts").onsubmit = async event => {
    event.preventDefault();
    const fields = Object.fromEntries([...document.querySelectorAll("#fields textarea")].map(field => [field.name, field.value])), now = chosen();
    fill("answers", el("p", { className: "soft" }, "Reading…"));
    asked.guard?.abort(); // it takes longer, and is asked again afterwards
    try {
      const said = await ask("text", { edits: now, fields });
      fill("answers", ...said.map(one => el("div", { className: "answer" }, el("h3", {}, `${one.model === "clipped" ? `clipped (${now.join(", ")})` : "unpruned"}: ${one.prediction}`),
        ...Object.entries(one.probabilities).map(([label, chance]) => {
          const bar = el("i");
          bar.style.width = `${100 * chance}%`;
          return el("div", { className: "chance" }, el("span", {}, label), el("div", { "aria-hidden": "true" }, bar), el("span", {}, chance.toFixed(3)));
        }), el("p", { className: "soft" }, "It goes on:"), el("p", { className: "goes" }, one.continues))));
    } catch (error) { if (!stopped(error)) fill("answers", el("p", { className: "wrong" }, error.message)); else fill("answers"); }
    if (String(now) === String(chosen())) guard(now);
  };
  $("test").onclick = async () => {
    const now = testable();
    if (!confirm(`Look at the ${about.test_rows} test rows for ${now.join(", ")}? This is done once.`)) return;
    busy("Testing…");
    try { await ask("test", { edits: now }); busy(""); } catch (error) { wrong(error); }
    Object.assign(about, await ask("about").catch(() => ({}))); // a test that was stopped was begun
    sealed();
  };
  soon();
}
main().catch(wrong);
