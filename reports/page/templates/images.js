"use strict";
// What a row sees of an image is a script of numbers, loaded when it is asked for; names are in the page. What is chosen
// stands behind # in the address, so that it can be linked and the browser's own "back" works.
(() => {
  const find = (id) => document.getElementById(id);
  const folder = document.body.dataset.folder;
  const form = find("controls");
  const FIELDS = ["row", "with", "seed", "kind", "bin", "class", "score"];
  const SVG = "http://www.w3.org/2000/svg";
  const items = Array.from(document.querySelectorAll(".thumbnails li"));
  const vals = new Map();  // val -> its images
  items.forEach((item, image) => {
    const val = Number(item.dataset.val);
    if (!vals.has(val)) vals.set(val, []);
    vals.get(val).push(image);
  });
  const kinds = new Map(Array.from(document.querySelectorAll("[data-kind]"), (one) => [Number(one.dataset.kind), one]));
  const MISSED = 6, BOX = 8;
  const classes = new Map(Array.from(form.elements.class.options).slice(1).map((one) => [Number(one.value), one.dataset]));
  const runs = Array.from(form.elements.row.options, (one) => new Map(one.dataset.runs.trim().split(" ").map((text) => {
    const [seed, run, val] = text.split(":").map(Number);
    return [seed, { run, val }];
  })));
  const labels = Array.from(form.elements.row.options, (one) => one.text);

  // -- scripts of numbers: "boxes" of an image, "rows" of a run
  const known = new Map(), waiting = new Map();
  const load = (kind, number) => {
    const name = `${kind}/${number}`;
    if (known.has(name)) return Promise.resolve(known.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = `${folder}/${name}.js`;
        script.onload = () => resolve(known.get(name));
        script.onerror = () => { waiting.delete(name); resolve(undefined); };
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  };
  window.bench = {
    image(number, size, truth, views) {
      known.set(`boxes/${number}`, { size, truth, views: new Map(views.map((view) => [view[0], view])) });
    },
    row(number, lines) { known.set(`rows/${number}`, new Map(lines.map(([image, ...met]) => [image, met]))); },
  };

  // -- what is chosen
  const state = () => {
    const found = { score: Number(form.elements.score.value) || 0 };
    for (const name of ["row", "with", "seed", "kind", "class"]) {
      const text = form.elements[name].value;
      found[name] = text === "" ? null : Number(text);
    }
    found.bin = form.elements.bin.value;
    return found;
  };
  const PIECE = 200;  // images that are laid out at once
  let most = PIECE;
  let open = null;  // the number of the image in the view
  let shown = [];  // those that the filter leaves

  const write = (push) => {
    const words = FIELDS.map((name) => [name, form.elements[name].value]).filter(([name, value]) =>
      value !== "" && !(name === "score" && value === "0.1"));
    if (open !== null) words.push(["image", open]);
    const address = `#${words.map((pair) => pair.join("=")).join("&")}`;
    if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address);
  };
  const seeds = () => {
    const select = form.elements.seed, before = select.value;
    const own = Array.from(runs[Number(form.elements.row.value)].keys());
    select.replaceChildren(...own.map((seed) => new Option(String(seed), String(seed))));
    select.value = own.includes(Number(before)) && before !== "" ? before : String(own[0]);
  };
  const read = () => {
    const words = new Map(location.hash.slice(1).split("&").map((pair) => pair.split("=")));
    for (const name of FIELDS) {
      if (name === "seed") seeds();
      const control = form.elements[name], value = words.get(name);
      if (name === "score") {
        control.value = value !== undefined && Number(value) >= 0 && Number(value) <= 1 ? value : "0.1";
      } else if (Array.from(control.options).some((one) => one.value === value)) {
        control.value = value;
      } else if (name !== "seed") {
        control.selectedIndex = 0;
      }
    }
    const image = Number(words.get("image"));
    open = words.has("image") && Number.isInteger(image) && image >= 0 && image < items.length ? image : null;
  };

  const ofClass = (wanted, number) => {
    const one = classes.get(number);
    return (wanted.class === null || wanted.class === number) &&
      (wanted.bin === "" || wanted.bin === one.bin || wanted.bin === one.frequency);
  };
  const filtered = (wanted) => wanted.class !== null || wanted.bin !== "" || wanted.kind !== null;
  const fits = (wanted, met) => {
    for (let i = 0; i < met.length; i += 3) {
      if ((wanted.kind === null || met[i + 1] === wanted.kind) && met[i + 2] >= wanted.score && ofClass(wanted, met[i])) return true;
    }
    return false;
  };

  // -- drawing
  const element = (name, attributes = {}, ...inside) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };
  const html = (name, text = "", of = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    if (of) made.className = of;
    return made;
  };
  const named = (number) => classes.get(number).name;
  const short = (name) => name.length > 20 ? `${name.slice(0, 19)}\u2026` : name;
  const rowOf = (cells, faint) => {
    const row = document.createElement("tr");
    cells.forEach(([text, of], place) => row.append(html(place === 1 ? "th" : "td", text, of)));
    row.cells[1].scope = "row";
    row.classList.toggle("faint", faint);
    return row;
  };
  const stateOf = (state) => ({ "-1": "missed", "-2": "not found; an error of class or place lies on it", "-3": "does not count" })[state] ??
    `found, ${state.toFixed(2)}`;

  const panel = (wanted, run, label, image, data) => {
    const figure = document.createElement("figure");
    const caption = html("figcaption");
    caption.append(html("h3", `${label}, seed ${wanted.seed}`));
    figure.append(caption);
    const view = run && data ? data.views.get(run.run) : undefined;
    if (!view) {
      const text = data ? "This row has no predictions of this image at this seed." : "The boxes of this image cannot be loaded.";
      figure.append(html("p", text));
      return figure;
    }
    const [, states, found] = view;
    const [width, height] = data.size;
    const picture = element("image", { href: `${folder}/${image}.jpg`, width, height, preserveAspectRatio: "none" });
    const drawing = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Boxes and detections of ${label}, as in the table below` }, picture);
    const body = document.createElement("tbody");
    const texts = [], under = element("g"), over = element("g");
    drawing.append(under, over);
    const add = (kind, [x, y, w, h], text, cells, classOf) => {
      const fit = wanted.kind === null || wanted.kind === kind;
      const faint = filtered(wanted) && !(fit && classOf.some((one) => ofClass(wanted, one)));
      const place = { x, y, width: w, height: h };
      const group = element("g", {}, element("rect", { class: "halo", ...place }),
        element("rect", { class: `k-${kinds.get(kind).dataset.style}`, ...place }));
      if (faint) group.classList.add("faint");
      const number = body.rows.length + 1;
      if (!faint) texts.push(element("text", { x, y, "data-height": h, "data-long": `${number} ${text}`, "data-short": number }));
      (kind === BOX || kind === MISSED ? under : over).append(group);
      const row = rowOf([[number, "n"], ...cells], faint);
      row.addEventListener("mouseenter", () => { group.classList.add("on"); });
      row.addEventListener("mouseleave", () => { group.classList.remove("on"); });
      group.addEventListener("mouseenter", () => { row.classList.add("on"); });
      group.addEventListener("mouseleave", () => { row.classList.remove("on"); });
      body.append(row);
    };
    const enough = found.filter((one) => one[5] >= wanted.score);
    for (const [number, x, y, w, h, score, kind, at] of enough) {
      const one = kinds.get(kind);
      const concerned = at >= 0 ? data.truth[at][0] : null;
      const on = concerned === null ? "-" : kind === 0 ? "its box" : `a box of ${named(concerned)}`;
      add(kind, [x, y, w, h], `${kind === 0 ? "" : `${one.dataset.short}: `}${short(named(number))} ${score.toFixed(2)}`,
        [[one.textContent], [named(number)], [score.toFixed(2), "n"], [on]], concerned === null ? [number] : [number, concerned]);
    }
    data.truth.forEach(([number, ...box], i) => {
      const kind = states[i] === -1 ? MISSED : BOX;
      add(kind, box, kind === MISSED ? `missed: ${short(named(number))}` : "",
        [[kinds.get(kind).textContent], [named(number)], ["-", "n"], [stateOf(states[i])]], [number]);
    });
    drawing.append(...texts);
    const table = document.createElement("table");
    table.append(html("caption", `${data.truth.length} ${data.truth.length === 1 ? "box" : "boxes"}; ${enough.length} of ${found.length} detections score at least ${wanted.score}`));
    const head = document.createElement("tr");
    for (const [text, of] of [["no.", "n"], ["what"], ["class"], ["score", "n"], ["concerns"]]) {
      const cell = html("th", text, of);
      cell.scope = "col";
      head.append(cell);
    }
    table.createTHead().append(head);
    table.append(body);
    const region = html("div", "", "box");
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", `Table of ${label}`);
    region.append(table);
    figure.append(drawing, region);
    return figure;
  };
  // Letters are 12 px on the screen, however large the image is drawn. What a box is stands above it, or inside; where
  // that would lie on another text, the box has only its number in the table.
  const letters = () => {
    for (const drawing of document.querySelectorAll("#panels figure > svg")) {
      const size = drawing.viewBox.baseVal, outer = drawing.getBoundingClientRect();
      const pixel = Math.max(size.width / outer.width, size.height / outer.height) || 1;
      const high = 14 * pixel, taken = [];
      const put = (word, text, top) => {
        const x = Number(word.dataset.x), wide = (word.textContent = text, word.getComputedTextLength());
        const left = Math.max(0, Math.min(x, size.width - wide)), up = Math.max(0, Math.min(top, size.height - high));
        const free = taken.every(([l, t, w]) => left >= l + w || l >= left + wide || up >= t + high || t >= up + high);
        if (!free) return false;
        word.setAttribute("x", left);
        word.setAttribute("y", up + 0.8 * high);
        taken.push([left, up, wide]);
        return true;
      };
      for (const word of drawing.querySelectorAll("text")) {
        word.dataset.x ??= word.getAttribute("x");
        word.dataset.y ??= word.getAttribute("y");
        word.setAttribute("font-size", 12 * pixel);
        word.setAttribute("stroke-width", 3 * pixel);
        const y = Number(word.dataset.y), places = [y - high, y + Number(word.dataset.height), y + 2 * pixel];
        const words = form.elements.names.checked ? [word.dataset.long, word.dataset.short] : [word.dataset.short];
        if (!words.some((text) => places.some((top) => put(word, text, top)))) word.textContent = "";
      }
    }
  };

  // The first of what fits is in the grid; thousands of images would take seconds to lay out.
  let laid = items.keys();
  const lay = () => {
    for (const image of laid) items[image].hidden = true;
    laid = shown.slice(0, most);
    for (const image of laid) items[image].hidden = false;
    document.querySelector(".thumbnails").classList.add("laid");
    find("more").hidden = shown.length <= most;
    find("more").textContent = `Show ${Math.min(PIECE, shown.length - most)} more`;
  };

  let turn = 0;  // of the newest call: an answer that comes later than another question is dropped
  const show = async (focus) => {
    const own = ++turn, wanted = state();
    const run = runs[wanted.row].get(wanted.seed);
    const met = await load("rows", run.run);
    const opened = open;
    const data = opened === null ? null : await load("boxes", opened);
    if (own !== turn) return;
    const all = vals.get(run.val) ?? [];
    shown = all.filter((image) => !filtered(wanted) || (met !== undefined && fits(wanted, met.get(image) ?? [])));
    lay();
    const of = all.length, place = shown.indexOf(opened);
    find("status").textContent = met === undefined ? `The file ${folder}/rows/${run.run}.js cannot be loaded.` :
      `${shown.length} of the ${of} images of seed ${wanted.seed}${filtered(wanted) ? " fit the filter" : ""}${opened === null ? "" : place >= 0 ? `; this is number ${place + 1}` : "; this one does not"}`;
    find("grid").hidden = opened !== null;
    find("view").hidden = opened === null;
    if (opened !== null) {
      find("view-name").textContent = items[opened].querySelector(".name").textContent;
      const rows = wanted.with === null || wanted.with === wanted.row ? [wanted.row] : [wanted.row, wanted.with];
      find("panels").replaceChildren(...rows.map((row) => panel(wanted, runs[row].get(wanted.seed), labels[row], opened, data)));
      letters();
      find("before").disabled = place >= 0 ? place === 0 : !shown.length;
      find("next").disabled = place >= 0 ? place === shown.length - 1 : !shown.length;
    }
    if (focus) focus.focus({ preventScroll: false });
    document.documentElement.dataset.ready = own;
  };
  const openImage = (image) => {
    const first = open === null;
    open = image;
    write(first);
    show(first ? find("view-name") : null);
    if (first) scrollTo(0, 0);
  };
  const step = (by) => {
    const place = shown.indexOf(open);
    const next = place < 0 ? shown[0] : shown[place + by];
    if (next !== undefined) openImage(next);
  };
  const close = () => {
    const link = items[open].querySelector("a");
    most = Math.max(most, PIECE * Math.ceil((shown.indexOf(open) + 1) / PIECE));
    open = null;
    write(false);
    show(link);
  };

  document.querySelector(".thumbnails").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (!item || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openImage(items.indexOf(item));
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "row") seeds();
    most = PIECE;
    if (open !== null && Number(items[open].dataset.val) !== runs[state().row].get(state().seed).val) open = null;
    write(false);
    show();
  });
  find("clear").addEventListener("click", () => {
    for (const name of ["kind", "bin", "class"]) form.elements[name].value = "";
    write(false);
    show();
  });
  find("more").addEventListener("click", () => {
    const next = items[shown[most]].querySelector("a");
    most += PIECE;
    lay();
    next.focus();
  });
  find("before").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (open === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { close(); return; }
    if (event.target.closest?.("select, input, [role=region]")) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      step(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  addEventListener("popstate", () => { read(); show(); });
  addEventListener("resize", letters);
  form.hidden = false;
  find("status").hidden = false;
  read();
  show();
})();
