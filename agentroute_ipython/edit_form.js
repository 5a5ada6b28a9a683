// The form of `%agent edit`. It shows what Python says, and writes the cell that Python names; all reading is Python's.
// Text that comes from elsewhere goes into textContent and value only.

const LIMITS = [
  ["max_cost", "max cost (USD)"], ["max_turns", "max turns"], ["retries", "retries"],
  ["temperature", "temperature"], ["max_tokens", "max tokens"],
];
const PLAIN = [["output", "output type"], ["memory", "memory"], ["history", "history"]];
const MOST_MODELS = 50;

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// Characters that a keyboard shortcut of the notebook would take (a, b, d d, Enter) belong to the form.
function noShortcuts(element) {
  element.dataset.lmSuppressShortcuts = "true";
  return element;
}

// ---- the notebook: JupyterLab 4 and Notebook 7 let a widget reach its document; elsewhere null

function sharedNotebook(model) {
  const document = model.widget_manager?.context;
  const shared = document?.model?.sharedModel;
  return Array.isArray(shared?.cells) && typeof shared.cells[0]?.updateSource === "function" ? { document, shared } : null;
}

function agentCells(model) {
  const notebook = sharedNotebook(model);
  if (!notebook) return null;
  return notebook.shared.cells.flatMap((cell, index) => {
    const source = cell.getSource();
    if (cell.cell_type !== "code" || !source.includes("%%agent")) return [];
    const writable = !notebook.document.model.readOnly && cell.getMetadata("editable") !== false;
    return [{ id: cell.getId(), source, number: index + 1, count: cell.execution_count, writable }];
  });
}

const isHigh = (text, at) => at >= 0 && text.charCodeAt(at) >= 0xd800 && text.charCodeAt(at) <= 0xdbff;

// Only what differs is replaced, in one step that can be undone. False when the cell is not what Python was shown.
function writeCell(model, { id, before, after }) {
  const cell = sharedNotebook(model)?.shared.cells.find((cell) => cell.getId() === id);
  if (!cell || cell.getSource() !== before) return false;
  const most = Math.min(before.length, after.length);
  let start = 0, tail = 0;
  while (start < most && before[start] === after[start]) start += 1;
  if (isHigh(before, start - 1)) start -= 1;
  while (tail < most - start && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1;
  if (tail && isHigh(before, before.length - 1 - tail)) tail -= 1;
  cell.updateSource(start, before.length - tail, after.slice(start, after.length - tail));
  return cell.getSource() === after;
}

// A new cell below the one that shows this form; false where that cannot be done.
function insertCell(model, name, source) {
  const notebook = sharedNotebook(model);
  if (!notebook || notebook.document.model.readOnly) return false;
  const here = notebook.shared.cells.findLastIndex((cell) => cell.getSource().includes(`%agent edit ${name}`));
  const at = here < 0 ? notebook.shared.cells.length : here + 1;
  notebook.shared.insertCell(at, { cell_type: "code", source, metadata: {} });
  return notebook.shared.cells[at].getSource() === source;
}

// ---- fields

let count = 0;

class Fields {
  constructor(form) {
    this.form = form;
    this.inputs = new Map();
    this.problems = new Map();
    this.shown = { ...form.values };
  }

  field(name, label, input, ...more) {
    const row = make("div", "agr-field");
    const head = make("label", "", label);
    const problem = make("p", "agr-problem");
    input.id = `agr-field-${(count += 1)}`;
    problem.id = `${input.id}-problem`;
    head.htmlFor = input.id;
    input.setAttribute("aria-describedby", problem.id);
    input.name = name;
    input.value = this.form.values[name];
    input.placeholder = this.form.hints[name] ?? "";
    input.spellcheck = name === "instructions";
    input.autocomplete = "off";
    this.inputs.set(name, input);
    this.problems.set(name, problem);
    row.append(head, input, ...more, problem);
    return row;
  }

  tools() {
    const row = make("div", "agr-field");
    const head = make("div", "agr-label", "tools");
    const group = make("fieldset", "agr-tools");
    const imported = make("details");
    const problem = make("p", "agr-problem");
    head.id = `agr-field-${(count += 1)}`;
    group.setAttribute("aria-labelledby", head.id);
    imported.append(noShortcuts(make("summary", "", "imported functions")));
    this.boxes = this.form.tools.map((tool) => {
      const label = make("label");
      const box = noShortcuts(make("input"));
      box.type = "checkbox";
      box.name = `tool ${tool.name}`;
      box.value = tool.name;
      box.checked = this.form.chosen.includes(tool.name);
      label.append(box, make("span", "agr-code", tool.name), make("span", "agr-note", tool.about));
      (tool.group === "imported" ? imported : group).append(label);
      imported.open ||= tool.group === "imported" && box.checked;
      return box;
    });
    if (imported.children.length > 1) group.append(imported);
    if (!this.boxes.length) group.append(make("p", "agr-note", "No functions in the notebook yet: def one in a cell, and open the form again."));
    group.append(make("p", "agr-note", this.form.hints.tools ?? ""));
    this.problems.set("tools", problem);
    row.append(head, group, problem);
    return row;
  }

  chosen() {
    const checked = this.boxes.filter((box) => box.checked).map((box) => box.value);
    const kept = this.form.chosen.filter((name) => checked.includes(name));
    return [...kept, ...checked.filter((name) => !kept.includes(name))];
  }

  // What differs from what was shown; a browser may have changed line ends, so inputs are compared with inputs.
  changes() {
    const found = {};
    for (const [name, input] of this.inputs) {
      if (input.value !== this.form.values[name].replace(/\r\n?/g, "\n")) found[name] = input.value;
    }
    if (this.chosen().join() !== this.form.chosen.join()) found.tools = this.chosen().join(",");
    return found;
  }

  retype(changes) {
    for (const [name, text] of Object.entries(changes)) {
      if (name === "tools") this.boxes.forEach((box) => { box.checked = text.split(",").includes(box.value); });
      else this.inputs.get(name).value = text;
    }
  }

  tell(errors) {
    for (const [name, problem] of this.problems) {
      problem.textContent = errors[name] ?? "";
      this.inputs.get(name)?.setAttribute("aria-invalid", String(name in errors));
    }
    const first = [...this.problems.keys()].find((name) => name in errors);
    (this.inputs.get(first) ?? (first === "tools" ? this.boxes[0] : null))?.focus();
  }
}

// A text field with a list of models below it: every word typed must be in the id or in what is said of it.
function completing(input, models) {
  const list = make("ul");
  list.id = `agr-models-${(count += 1)}`;
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "models");
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id })) {
    input.setAttribute(name, value);
  }
  let at = -1;
  const close = () => {
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const pick = (id) => {
    input.value = id;
    close();
  };
  const select = (next) => {
    const options = [...list.children];
    at = options.length ? (next + options.length) % options.length : -1;
    options.forEach((option, index) => option.setAttribute("aria-selected", String(index === at)));
    if (at >= 0) {
      options[at].scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", options[at].id);
    }
  };
  const open = (typed) => {
    const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = models.filter(([id, about]) => words.every((word) => `${id} ${about}`.toLowerCase().includes(word)));
    list.replaceChildren(...fitting.slice(0, MOST_MODELS).map(([id, about], index) => {
      const option = make("li");
      option.id = `${list.id}-${index}`;
      option.setAttribute("role", "option");
      option.append(make("span", "", id), make("span", "", about));
      option.addEventListener("mousedown", (event) => {
        event.preventDefault();
        pick(id);
      });
      return option;
    }));
    close();
    if (!list.children.length) return;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
  };
  input.addEventListener("input", () => open(input.value));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) open(input.value);
      if (list.children.length < 2) open("");
      select(event.key === "ArrowDown" ? at + 1 : at < 0 ? -1 : at - 1);
    } else if (event.key === "Enter" && at >= 0) {
      pick(models.find(([id]) => id === list.children[at].firstChild.textContent)[0]);
    } else if (event.key === "Escape" && !list.hidden) {
      close();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  return list;
}

function button(text, act, className = "") {
  const made = noShortcuts(make("button", className, text));
  made.type = "button";
  made.name = text;
  made.addEventListener("click", () => act(made));
  return made;
}

function typeList(types) {
  const list = make("datalist");
  list.id = `agr-types-${(count += 1)}`;
  list.append(...types.map((name) => Object.assign(make("option"), { value: name })));
  return list;
}

// ---- the form

function render({ model, el }) {
  const view = Math.random().toString(36).slice(2);
  const root = make("form", "agr-form");
  const said = make("p", "agr-said");
  let fields = null, waiting = 0, tries = 0, sent = {}, confirmed = "", close = null, losing = 0, done = "";
  said.setAttribute("role", "status");
  root.append(said);
  el.append(root);

  const say = (text) => { said.textContent = text; };
  const ask = (message) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => say(
      "No answer yet. The kernel is busy, and this is done when it is free; or it was restarted, then run this cell again."), 1500);
    model.send({ ...message, view, cells: agentCells(model) });
  };
  const save = (yes = "") => {
    if (!fields) return;
    tries = 0;
    confirmed = yes;
    root.querySelector(".agr-paste")?.remove();
    root.querySelector(".agr-confirm")?.remove();
    sendChanges();
  };
  const sendChanges = () => {
    tries += 1;
    say("");
    sent = fields.changes();
    ask({ kind: "save", changes: sent, shown: fields.shown, cell: fields.form.cell, confirmed });
  };

  // What was typed and not written yet stays, and so does the focus.
  const draw = (form) => {
    const typed = Object.entries(fields?.changes() ?? {}).filter(([name, text]) => !done || sent[name] !== text);
    const focus = root.contains(document.activeElement) ? document.activeElement.name : "";
    fields = new Fields(form);
    root.setAttribute("aria-label", `agent ${form.name}`);
    const area = make("textarea");
    area.rows = Math.min(20, Math.max(5, form.values.instructions.split("\n").length + 1));
    const modelInput = make("input");
    const modelList = completing(modelInput, form.models);
    const limits = make("div", "agr-limits");
    limits.append(...LIMITS.map(([name, label]) => fields.field(name, label, Object.assign(make("input"), { inputMode: "decimal" }))));
    const rest = make("div", "agr-limits");
    const types = typeList(form.types);
    rest.append(...PLAIN.map(([name, label]) => fields.field(name, label, make("input"))), types);
    fields.inputs.get("output").setAttribute("list", types.id);
    root.replaceChildren(
      make("h3", "agr-title", form.name),
      fields.field("model", "model", modelInput, modelList),
      fields.field("instructions", "instructions", area, make("p", "agr-note", "{name} is filled from the notebook; {{name}} stays.")),
      fields.tools(), limits, rest,
      make("p", "agr-note", form.where), ...kept(form), buttons(form), said,
    );
    fields.retype(Object.fromEntries(typed));
    if (focus) root.elements.namedItem(focus)?.focus();
    say(done);
    nameClose();
    done = "";
  };

  // What holds in the kernel, and is in no cell: each with a button that ends it.
  const kept = (form) => {
    const settings = Object.entries(form.kept);
    if (!settings.length) return [];
    const box = make("div", "agr-kept");
    const forget = (setting) => {
      sent = {};
      ask({ kind: "forget", setting });
    };
    box.append(make("p", "agr-note", "Kept from an earlier run, not in the notebook; a restarted kernel lacks it:"));
    box.append(...settings.map(([setting, value]) => {
      const row = make("p", "agr-row");
      row.append(make("span", "", `${setting}: ${value}`), button(`Forget ${setting}`, () => forget(setting)));
      return row;
    }));
    return [box];
  };

  const rereading = () => button("Read the cell again", () => ask({ kind: "open" }));

  // No more changes are lost than the button says.
  const nameClose = () => {
    if (Object.keys(fields.changes()).length !== losing) losing = 0;
    close.textContent = losing ? `Close and lose ${losing} ${losing === 1 ? "change" : "changes"}` : "Close";
  };

  const buttons = (form) => {
    const row = make("div", "agr-buttons");
    close = button("Close", () => {
      const changes = Object.keys(fields.changes()).length;
      if (!changes || changes === losing) return model.send({ kind: "close", view });
      losing = changes;
      nameClose();
    });
    row.append(button(form.writes ? "Write to the cell" : "Make the cell’s text", () => save(), "agr-main"), rereading(), close);
    return row;
  };

  const paste = ({ text, words }) => {
    const box = make("div", "agr-paste");
    const area = make("textarea");
    area.readOnly = true;
    area.value = text;
    area.rows = Math.min(20, text.split("\n").length + 1);
    area.setAttribute("aria-label", "text of the cell");
    const row = make("div", "agr-buttons");
    const copy = button("Copy", async () => {
      area.select();
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        document.execCommand("copy");
      }
      copy.textContent = "Copied";
    });
    row.append(copy);
    if (sharedNotebook(model)) {
      const insert = button("Insert as a new cell", () => {
        insert.disabled = insertCell(model, fields.form.name, text);
        say(insert.disabled ? "There is a new cell below; run it." : "This notebook takes no new cell; copy the text.");
      });
      row.append(insert);
    }
    box.append(make("p", "agr-said", words), area, row);
    root.querySelector(".agr-paste")?.remove();
    root.append(box);
    area.focus();
    area.select();
  };

  const answers = {
    form: draw,
    text: paste,
    problems: ({ errors, shown }) => {
      if (shown) Object.assign(fields.shown, shown);
      if (fields) fields.tell(errors);
      else root.replaceChildren(said, rereading());
      say(errors[""] ?? (Object.keys(errors).length ? "Nothing was written." : ""));
    },
    confirm: ({ words, confirmed: also }) => {
      fields.tell({});
      const box = make("div", "agr-confirm");
      box.append(button("Write all of it", () => save(also)));
      root.append(box);
      say(words);
    },
    write: (order) => {
      if (writeCell(model, order)) ask({ kind: "written", id: order.id });
      else if (tries < 3) sendChanges();
      else say("The cell changes faster than it can be written; nothing was written. Try again.");
    },
    done: ({ words }) => {
      done = words;
      ask({ kind: "open" });
    },
  };
  const receive = (message) => {
    if (message?.view !== view || !(message.kind in answers)) return;
    clearTimeout(waiting);
    answers[message.kind](message);
  };
  // Enter in a field writes; in the text of several lines it is a new line, and Ctrl+Enter writes.
  root.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("keydown", (event) => {
    const { tagName, type, readOnly } = event.target;
    const writes = tagName === "INPUT" ? type !== "checkbox" : tagName === "TEXTAREA" && !readOnly && (event.ctrlKey || event.metaKey);
    if (event.key === "Enter" && writes && !event.isComposing) {
      event.preventDefault();
      event.stopPropagation();
      save();
    }
    if (event.key === "s" && (event.ctrlKey || event.metaKey) && event.target.closest("[data-lm-suppress-shortcuts]")) {
      event.preventDefault();
      sharedNotebook(model)?.document.save?.();
    }
  });
  model.on("msg:custom", receive);
  ask({ kind: "open" });
  return () => {
    clearTimeout(waiting);
    model.off("msg:custom", receive);
  };
}

export default { render };
