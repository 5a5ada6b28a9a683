// The live table of history_view.py. Python holds the truth: what is done here is sent as `{do: …}`, and the answer is a new
// `state`. Text of models and people only goes through textContent; the one HTML is a card, which display.py has made.

const CSS = `
& { overflow: visible; }
& :is(button, input, select) { font: inherit; color: inherit; background: none; border: 1px solid var(--agr-line); border-radius: 4px; padding: 2px 8px; margin: 0; min-width: 0; }
& :is(select, option) { background: var(--jp-layout-color1, var(--vscode-editor-background, Canvas)); color: var(--jp-content-font-color1, var(--vscode-editor-foreground, CanvasText)); }
& input::placeholder { color: var(--agr-dim); opacity: 1; }
& button { cursor: pointer; }
& button:disabled { cursor: default; opacity: .5; }
& :is(button:enabled:hover, button[aria-pressed=true]) { background: color-mix(in srgb, currentColor 12%, transparent); }
& :is(button, input, select, summary):focus-visible { outline: 2px solid var(--agr-busy); outline-offset: 1px; }
& .agr-controls { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: end; padding: 8px 18px; color: var(--agr-text); background: var(--agr-soft); }
& .agr-field { display: flex; flex-direction: column; gap: 2px; }
& .agr-field label { font-size: .85em; color: var(--agr-dim); }
& .agr-field > :is(input, select) { width: 9.5em; box-sizing: border-box; height: 2.1em; }
& .agr-broad > input { width: 13em; }
& .agr-controls-foot { align-items: center; }
& .agr-controls-foot > .agr-grow { flex: 1; }
& .agr-problem { margin: 0; padding: 8px 18px; border-inline-start: 4px solid var(--agr-bad); white-space: pre-wrap; }
& .agr-steps { max-height: 46em; overflow: auto; padding-top: 0; }
& thead th { position: sticky; top: 0; z-index: 1; padding-top: 6px; background: var(--jp-layout-color0, var(--vscode-editor-background, Canvas)); }
& thead button { border: 0; padding: 0 2px; color: inherit; }
& thead [aria-sort] { color: var(--agr-text); font-weight: 600; }
& .agr-steps :is(th, td):first-child { width: 1px; padding-inline-end: 0; }
& .agr-run-row > .agr-wide { min-width: 12em; }
& .agr-run-row > td:nth-child(5) { white-space: normal; }
& tbody tr.agr-run-row:hover { background: var(--agr-soft); }
& .agr-open { border: 0; padding: 0; text-align: start; white-space: normal; overflow-wrap: anywhere; unicode-bidi: isolate; }
& .agr-open:hover { text-decoration: underline; background: none; }
& .agr-thumb { border-color: transparent; padding: 1px 4px; }
& .agr-thumb[aria-pressed=true] { border-color: var(--agr-text); }
& .agr-thumb[aria-pressed=false] { opacity: .6; }
& td.agr-card { padding: 4px 18px 12px; text-align: start; white-space: normal; }
&[aria-busy=true] tbody { opacity: .6; }
& input[type=checkbox] { width: auto; margin: 2px 0; vertical-align: middle; accent-color: var(--agr-busy); }
& .agr-none { padding: 18px; text-align: start; color: var(--agr-dim); }
`.replaceAll("&", ".agr.agr.agr-live");
const HEADS = [
  [["started_at", "Started"]], [["agent_name", "Agent"], ["request_model", "Model"]], [], [["status", "Status"]], [["n_turns", "Turns"]],
  [["input_tokens", "In"], ["output_tokens", "Out"]], [["cost_usd", "Cost"]], [["duration_s", "Time"]],
];
const LEFT = new Set([0, 1, 2, 3]);
const FIELDS = [
  ["text", "Text in prompt or answer", "a word", "agr-broad"], ["agent", "Agent", "all"], ["model", "Model", "all"], ["status", "Status", "all"],
  ["tag", "Tag", "name=value"], ["since", "Since", "7d"], ["until", "Until", "2026-11-01"],
];
const CHOSEN = { agent: null, model: null, status: ["ok", "error", "interrupted"].map(word => [word, word]) };
const TYPING_MS = 500, PATIENCE_MS = 300, BUSY_MS = 4000;

function make(name, attributes = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...inside.filter(part => part !== null && part !== "")); // a string becomes a text node
  return node;
}

const left = place => (LEFT.has(place) ? { style: "text-align:left" } : {});

// ---- the controls above -----------------------------------------------------------------------------------------------

function controls(send, key) {
  const fields = {};
  let timer = null;
  const apply = () => {
    clearTimeout(timer);
    send({ do: "filter", form: Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value])) });
  };
  const bar = make("div", { class: "agr-controls", role: "search" });
  for (const [name, label, hint, broad] of FIELDS) {
    const list = name === "tag" ? make("datalist", { id: `${key}-tags` }) : null;
    const id = `${key}-${name}`;
    const field = name in CHOSEN
      ? make("select", { id, onchange: apply })
      : make("input", {
          id, type: name === "text" ? "search" : "text", placeholder: hint, list: list?.id, spellcheck: "false", autocomplete: "off", onchange: apply,
          onkeydown: event => { event.stopPropagation(); if (event.key === "Enter") apply(); },
          oninput: () => { clearTimeout(timer); if (name === "text") timer = setTimeout(apply, TYPING_MS); },
        });
    fields[name] = field;
    bar.append(make("div", { class: `agr-field ${broad ?? ""}` }, make("label", { for: id }, label), field));
    if (list) bar.append(list);
  }
  const clear = make("button", { type: "button", onclick: () => { for (const field of Object.values(fields)) if (!field.disabled) field.value = ""; apply(); } }, "Clear filters");
  bar.append(clear);

  const show = state => {
    for (const [name, field] of Object.entries(fields)) {
      const fixed = state.fixed[name];
      const value = fixed ?? state.form[name];
      if (name in CHOSEN) {
        const labels = new Map(CHOSEN[name] ?? state.choices[name] ?? []);
        if (value && !labels.has(value)) labels.set(value, value);
        field.replaceChildren(make("option", { value: "" }, "all"), ...[...labels].map(([one, label]) => make("option", { value: one }, label)));
      }
      if (name === "tag") bar.querySelector("datalist").replaceChildren(...(state.choices.tag ?? []).map(([one]) => make("option", { value: one })));
      if (field !== field.getRootNode().activeElement || name in CHOSEN) field.value = value;
      field.disabled = fixed !== undefined;
    }
    clear.disabled = Object.values(state.form).every(value => !value);
  };
  return { bar, show, cancel: () => clearTimeout(timer) };
}

// ---- the table --------------------------------------------------------------------------------------------------------

function table(send, cards) {
  let state = null, last = null;
  const boxes = () => [...body.querySelectorAll("input[type=checkbox]")];
  const all = make("input", {
    type: "checkbox", "aria-label": "Select the runs of this page",
    onchange: () => send({ do: "select", ids: state.rows.map(row => row.id), on: all.checked }),
  });
  const sorters = {};
  const cells = HEADS.map((names, place) => make("th", { scope: "col", ...left(place), class: names.length ? "" : "agr-wide" }, ...(names.length ? names.flatMap(([name, label], index) => {
    sorters[name] = make("button", { type: "button", onclick: () => send({ do: "sort", by: name }) }, label);
    return index ? [" / ", sorters[name]] : [sorters[name]];
  }) : ["Prompt"])));
  const body = make("tbody");
  const whole = make("table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, all), ...cells, make("th", { scope: "col" }, "Judge"))), body);

  const tick = (event, index) => {
    const on = event.target.checked;
    const [from, to] = event.shiftKey && last !== null ? [Math.min(last, index), Math.max(last, index)] : [index, index];
    last = index;
    boxes().slice(from, to + 1).forEach(box => { box.checked = on; });
    send({ do: "select", ids: state.rows.slice(from, to + 1).map(row => row.id), on });
  };
  const thumb = (row, value, sign, words) => make("button", {
    type: "button", class: "agr-thumb", "data-key": `${row.id} ${value}`, "aria-pressed": String(row.thumb === value), "aria-label": words, title: words,
    onclick: () => send({ do: "thumb", id: row.id, value }),
  }, sign);
  const line = (row, index) => {
    const open = cards.has(row.id);
    const box = make("input", { type: "checkbox", "data-key": `${row.id} box`, "aria-label": `Select the run of ${row.started}`, onclick: event => tick(event, index) });
    box.checked = row.selected;
    const prompt = make("button", {
      type: "button", class: "agr-open", "data-key": `${row.id} open`, "aria-expanded": String(open), title: "Show the run",
      onclick: () => { if (cards.has(row.id)) { cards.delete(row.id); draw(state); } else send({ do: "open", id: row.id }); },
    }, row.prompt || "(no prompt)");
    const two = (text, more) => more ? [text, make("div", { class: "agr-dim" }, more)] : [text];
    const tone = row.ok ? "" : row.failed ? "agr-bad" : "agr-dim";
    const parts = [[row.started], two(row.agent, row.model), [prompt, make("div", { class: "agr-dim" }, row.answer)], [make("span", { class: tone }, row.status)],
      [row.turns], [row.tokens], two(row.cost, row.replayed), [row.seconds]];
    return make("tr", { class: "agr-run-row" }, make("td", {}, box),
      ...parts.map((part, place) => make("td", { ...left(place), class: place === 2 ? "agr-wide" : "" }, ...part)),
      make("td", {}, thumb(row, 1, "👍", "Good answer"), thumb(row, 0, "👎", "Bad answer")));
  };
  const card = row => {
    const cell = make("td", { colspan: HEADS.length + 2, class: "agr-card" });
    const place = make("div");
    place.attachShadow({ mode: "open" }).innerHTML = cards.get(row.id); // made by display.py, which escapes; its style is its own
    cell.append(place);
    return make("tr", {}, cell);
  };
  const draw = next => {
    if (!state || state.page !== next.page || state.by !== next.by) last = null;
    state = next;
    const focused = body.getRootNode().activeElement?.getAttribute?.("data-key");
    const inside = focused && body.contains(body.getRootNode().activeElement);
    body.replaceChildren(...state.rows.flatMap((row, index) => cards.has(row.id) ? [line(row, index), card(row)] : [line(row, index)]));
    if (!state.rows.length) body.append(make("tr", {}, make("td", { colspan: HEADS.length + 2, class: "agr-none" }, "no such run")));
    if (inside) body.querySelector(`[data-key="${CSS_ESCAPE(focused)}"]`)?.focus();
    HEADS.forEach((names, place) => {
      const by = names.find(([name]) => name === state.by);
      if (by) cells[place].setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else cells[place].removeAttribute("aria-sort");
      for (const [name, label] of names) sorters[name].textContent = name === state.by ? `${label} ${state.descending ? "▾" : "▴"}` : label;
    });
    const chosen = state.rows.filter(row => row.selected).length;
    all.checked = chosen > 0 && chosen === state.rows.length;
    all.indeterminate = chosen > 0 && chosen < state.rows.length;
  };
  return { whole, draw };
}

const CSS_ESCAPE = text => (window.CSS?.escape ? window.CSS.escape(text) : text.replace(/["\\]/g, "\\$&"));

// ---- the line below ---------------------------------------------------------------------------------------------------

function footer(send) {
  let state = null;
  const button = (label, act) => make("button", { type: "button", onclick: act }, label);
  const turn = step => () => send({ do: "page", page: step === Infinity ? state.pages - 1 : step === -Infinity ? 0 : state.page + step });
  const first = button("First", turn(-Infinity)), before = button("Previous", turn(-1)), after = button("Next", turn(1)), end = button("Last", turn(Infinity));
  const where = make("span"), chosen = make("span", { "aria-live": "polite" });
  const every = button("", () => send({ do: "select_all", on: true })), none = button("Clear selection", () => send({ do: "select_all", on: false }));
  const bar = make("div", { class: "agr-controls agr-controls-foot" }, first, before, where, after, end, make("span", { class: "agr-grow" }), chosen, every, none,
    button("Refresh", () => send({ do: "refresh" })));
  const count = number => number.toLocaleString("en-US");
  const show = next => {
    state = next;
    first.disabled = before.disabled = state.page === 0;
    after.disabled = end.disabled = state.page >= state.pages - 1;
    where.textContent = state.total ? `${count(state.first)}–${count(state.first + state.rows.length - 1)} of ${count(state.total)}` : "no run";
    chosen.textContent = `${count(state.n_selected)} selected`;
    every.textContent = `Select all ${count(state.total)}`;
    every.disabled = !state.total;
    none.disabled = !state.n_selected;
  };
  return { bar, show };
}

// ---- the static table above, which stands for this one in a saved notebook ----------------------------------------------

function standIn(el) {
  let hidden = null, watch = null, tries = 0, timer = null;
  const find = () => {
    for (let near = el.closest(".jp-OutputArea-child")?.previousElementSibling; near; near = near.previousElementSibling)
      if (near.querySelector(".agr-history")) return near;
    return null;
  };
  const hide = () => {
    const found = find();
    if (found && found !== hidden) hidden = found;
    if (found) found.style.display = "none";
    return found;
  };
  const begin = () => {
    if (!el.isConnected) { if (tries++ < 100) timer = setTimeout(begin, 50); return; }
    const area = el.closest(".jp-OutputArea");
    if (!area) return; // another front end: both are seen
    hide();
    watch = new MutationObserver(hide); // drawn anew, it is another element
    watch.observe(area, { childList: true });
  };
  begin();
  return () => { clearTimeout(timer); watch?.disconnect(); if (hidden) hidden.style.removeProperty("display"); };
}

let views = 0;

function render({ model, el }) {
  const cards = new Map();
  let slow = null, verySlow = null;
  const sheet = make("section", { class: "agr agr-sheet agr-live mathjax_ignore tex2jax_ignore", "aria-label": "Recorded runs" });
  const told = make("span", { class: "agr-dim", role: "status" });
  const problem = make("p", { class: "agr-problem", role: "alert", hidden: true });
  const send = message => {
    clearTimeout(slow); clearTimeout(verySlow);
    slow = setTimeout(() => { sheet.setAttribute("aria-busy", "true"); told.textContent = "working…"; }, PATIENCE_MS);
    verySlow = setTimeout(() => { told.textContent = "the kernel is busy; this comes when it is free"; }, BUSY_MS);
    model.send(message);
  };
  const answered = () => { clearTimeout(slow); clearTimeout(verySlow); sheet.removeAttribute("aria-busy"); told.textContent = ""; };
  const say = text => { problem.textContent = text; problem.hidden = !text; };
  const above = controls(send, `agr-${++views}`), rows = table(send, cards), below = footer(send);
  above.bar.append(told);
  const draw = () => {
    const state = model.get("state");
    answered();
    say(state.problem ?? "");
    above.show(state); // also what is no filter stands there as it was typed
    rows.draw(state);
    below.show(state);
  };
  const heard = message => {
    if (!message?.id) return;
    answered();
    cards.set(message.id, message.card);
    rows.draw(model.get("state"));
  };
  const style = make("style");
  style.textContent = model.get("sheet_style") + CSS;
  sheet.append(style, make("div", { class: "agr-run" }, above.bar, problem, make("div", { class: "agr-steps" }, rows.whole), below.bar));
  el.append(sheet);
  draw();
  model.on("change:state", draw);
  model.on("msg:custom", heard);
  const restore = standIn(el);
  return () => {
    model.off("change:state", draw);
    model.off("msg:custom", heard);
    answered();
    above.cancel();
    restore();
  };
}

export default { render };
