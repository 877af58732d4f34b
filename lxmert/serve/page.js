// The page around the drawing: what is asked, what is chosen, and the address that holds both.
(() => {
  const { element, picture, words, answers, colour, finite, number } = drawing;
  const at = (id) => document.getElementById(id);
  const embedded = JSON.parse(at("data").textContent); // null where a server is asked
  const live = embedded === null;
  const KEPT = 60; // replies: some 60 MB of a large model's maps
  const fresh = () => ({
    images: [], question: "", answer: null, method: null, layer: null, head: null, word: 0, region: null, side: 0, off: [],
    direction: "words", of: "0", sort: "number",
  });
  let start = embedded; // models, methods
  let state = fresh();
  let looked = null; // the pictures' regions, and a split's questions about them
  let exchange = null; // what is shown
  let running = null; // the request that is on its way
  const known = new Map(); // exchanges by what was asked
  const pictures = new Map(); // drawn ones, so that they need not be loaded again

  // ------------------------------------------------------------------------------------------ address

  function readAddress() {
    const query = new URLSearchParams(location.hash.slice(1));
    const whole = (name, otherwise) => (/^\d{1,5}$/.test(query.get(name) ?? "") ? Number(query.get(name)) : otherwise);
    const read = fresh();
    read.images = query.getAll("image");
    read.question = query.get("question") ?? "";
    read.answer = query.get("answer");
    read.method = query.get("method");
    read.layer = whole("layer", null);
    read.head = whole("head", null);
    read.word = whole("word", 0);
    read.region = whole("region", null);
    read.side = whole("side", 0);
    read.off = (query.get("off") ?? "").split(",").filter((text) => /^\d{1,5}$/.test(text)).map(Number);
    read.direction = query.get("direction") === "regions" ? "regions" : "words";
    read.of = query.get("of") ?? "0";
    read.sort = query.get("sort") ?? "number";
    return read;
  }

  function writeAddress(push) {
    const query = new URLSearchParams();
    const usual = fresh();
    for (const [key, value] of Object.entries(state)) {
      if (key === "images") value.forEach((image) => query.append("image", image));
      else if (key === "off") value.length && query.set("off", value.join(","));
      else if (value !== usual[key] && value !== null) query.set(key, value);
    }
    const address = `#${query}`;
    if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address);
  }

  // ------------------------------------------------------------------------------------------- asking

  async function call(path, options = {}) {
    let answered;
    try {
      answered = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer: it was ended, or this machine is out of reach.");
    }
    if (!answered.ok) {
      const told = await answered.json().catch(() => ({}));
      throw new Error(told.error || `The server answers ${answered.status}.`);
    }
    return answered;
  }

  const sent = (body, signal) => ({
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });

  const asking = () => ({
    images: state.images, question: state.question, answer: state.answer, method: method(), kept: kept(),
  });
  const keyOf = ({ images, question, answer, method, kept }) => JSON.stringify([images, question, answer, method, kept]);
  const method = () => (start.methods.includes(state.method) ? state.method : start.methods[0]);

  function kept() {
    const all = looked ? looked.pictures[0].boxes.length : 0;
    const off = new Set(state.off.filter((region) => region < all));
    return off.size ? [...Array(all).keys()].filter((region) => !off.has(region)) : null;
  }

  function say(text, error = false) {
    at("message").textContent = text;
    at("message").hidden = !text;
    at("message").classList.toggle("error", error);
  }

  // Changes what is chosen; `push` where "back" shall lead to what was before.
  async function go(changes, push = false) {
    Object.assign(state, changes);
    writeAddress(push);
    await show();
  }

  async function show() {
    if (running) running.abort();
    const mine = (running = new AbortController());
    try {
      if (live && (!looked || looked.pictures.map((each) => each.image_id).join("\n") !== state.images.join("\n"))) {
        looked = exchange = null;
        busy("looking at the picture …");
        const query = new URLSearchParams(state.images.map((image) => ["image", image]));
        looked = await (await call(`/api/look?${query}`, { signal: mine.signal })).json();
        pictures.clear();
      }
      exchange = state.question.trim() ? found() : null;
      if (!exchange && state.question.trim() && live) {
        busy("asking …");
        // With regions taken away, what it was with all of them comes first: both are shown.
        if (kept() && !whole()) await fetched({ ...asking(), answer: null, kept: null }, mine.signal);
        exchange = await fetched(asking(), mine.signal);
      }
      busy("");
    } catch (error) {
      if (error.name === "AbortError") return;
      exchange = null;
      busy("");
      say(error.message, true);
    }
    if (running === mine) draw();
  }

  async function fetched(body, signal) {
    const came = await (await call("/api/ask", sent(body, signal))).json();
    known.set(keyOf(body), came);
    if (known.size > KEPT) known.delete(known.keys().next().value);
    return came;
  }

  // The same question about all regions, whichever answer was explained: probabilities do not depend on it.
  const whole = () => known.get(keyOf({ ...asking(), answer: null, kept: null })) ?? known.get(keyOf({ ...asking(), kept: null }));

  // What is known of this question already. A file has replies to some answers alone: for others the first one.
  function found() {
    const asked = asking();
    if (known.has(keyOf(asked))) return known.get(keyOf(asked));
    if (live) return null;
    const shown = [...known.values()];
    const by = shown.filter((each) => each.asked.method === method() && each.replies[0].explained !== null);
    return by.find((each) => each.replies[0].explained === state.answer) ?? by[0] ?? shown[0];
  }

  let waiting = 0;
  function busy(text) {
    clearTimeout(waiting);
    document.body.classList.toggle("busy", text !== "");
    if (text === "") say("");
    else waiting = setTimeout(() => say(text), 250); // what is quick needs no words
  }

  // ------------------------------------------------------------------------------------------- numbers

  // Attention maps of a reply, (heads, queries, keys) of layer `layer` and picture `side`. A file has them once.
  function mapsOf(model, name, layer, side) {
    const holder = exchange.replies[model].attentions ? exchange : [...known.values()].find((each) => each.replies[model].attentions);
    const maps = holder && holder.replies[model].attentions[name];
    if (!maps) return null;
    const one = maps[Math.min(layer, maps.length - 1)];
    return start.models[0].pictures > 1 ? one[side] : one;
  }

  const layers = (model) => {
    const holder = [exchange, ...known.values()].find((each) => each && each.replies[model].attentions);
    return holder ? holder.replies[model].attentions.cross_encoder_attentions.length : 0;
  };
  const chosenLayer = (model) => Math.min(state.layer ?? Infinity, layers(model)) - 1; // the address counts from 1

  // One head's map, or the mean of all.
  function headOf(maps) {
    if (state.head !== null && state.head >= 1 && state.head <= maps.length) return maps[state.head - 1];
    return maps[0].map((line, query) => line.map((_, key) => maps.reduce((sum, each) => sum + each[query][key], 0) / maps.length));
  }

  function scaled(values, real = () => true) {
    const seen = values.filter((_, place) => real(place));
    const least = Math.min(...seen), most = Math.max(...seen);
    return values.map((value, place) => (real(place) && most > least ? (value - least) / (most - least) : 0));
  }

  // How words and regions are tinted of one model: {words, regions: one list a picture}.
  function tintsOf(model) {
    const reply = exchange.replies[model];
    if (method() !== "attention" || !layers(model))
      return { words: reply.word_scores, regions: reply.pictures.map((each) => each.region_scores ?? []) };
    const left = kept(), layer = chosenLayer(model), word = Math.min(state.word, reply.words.length - 1);
    const sides = reply.pictures.map((_, side) => side);
    const lines = sides.map((side) => headOf(mapsOf(model, "cross_language_attentions", layer, side))[word]);
    const toWords = lines[0].map((_, place) => lines.reduce((sum, line) => sum + line[place], 0) / lines.length);
    if (word === 0) toWords[0] = 0; // as lxmert.explain: [CLS] to itself would outshine all others
    return {
      words: scaled(toWords),
      regions: sides.map((side) => {
        const line = headOf(mapsOf(model, "cross_encoder_attentions", layer, side))[word];
        return scaled(line.slice(0, reply.pictures[side].boxes.length), (region) => !left || left.includes(region));
      }),
    };
  }

  const less = (a, b) => a.map((value, place) => value - b[place]);
  const same = (a, b) => a.length === b.length && a.every((value, place) => value === b[place]);

  // ------------------------------------------------------------------------------------------- drawing

  function draw() {
    const focused = document.activeElement && document.activeElement.dataset.key;
    drawForm();
    const replies = exchange ? exchange.replies : [];
    const tints = replies.map((_, model) => tintsOf(model));
    drawTools();
    const panels = start.models.map((model, place) => panel(model.name, place, replies[place], tints[place]));
    if (replies.length > 1) panels.push(difference(replies, tints));
    const ratio = shownPictures().reduce((sum, { size }) => sum + (size ? size[0] / size[1] : 4 / 3), 0);
    at("work").classList.toggle("one", panels.length === 1);
    at("work").style.setProperty("--ratio", ratio.toFixed(4));
    at("panels").replaceChildren(...panels);
    at("seen").hidden = at("looks").hidden = !looked && !exchange;
    if (looked || exchange) drawRegions(tints);
    drawMatrix();
    drawHonesty();
    if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  const shownPictures = () => (exchange ? exchange.replies[0].pictures : looked ? looked.pictures : []);
  const nameOf = ({ objects, attributes }, region) =>
    [attributes[region], objects[region]].filter(Boolean).map((each) => each.name).join(" ");
  const canToggle = () => live && shownPictures().length === 1;

  function drawForm() {
    at("ask").hidden = !live;
    at("asked").hidden = live;
    at("asked").textContent = state.question;
    if (!live) return;
    if (document.activeElement !== at("question")) at("question").value = state.question;
    [...at("ids").children].forEach((input, place) => {
      if (document.activeElement !== input) input.value = state.images[place] ?? "";
    });
    const place = looked ? looked.place : null;
    at("place").textContent = place === null ? "" : `${(place + 1).toLocaleString("en")} of ${start.total.toLocaleString("en")}`;
    at("previous").disabled = place === null || place === 0;
    at("next").disabled = place === null || place + 1 === start.total;
    const asked = (looked ? looked.questions : []).slice(0, 12);
    at("suggested").replaceChildren(
      ...asked.map(({ question, answer }) =>
        element(
          "button",
          { type: "button", "aria-pressed": String(question === state.question), title: answer ? `answer of the split: ${answer}` : null, onclick: () => go({ question, answer: null }, true) },
          question,
        ),
      ),
    );
  }

  function drawTools() {
    at("tools").hidden = !exchange;
    if (!exchange) return;
    const available = new Set(live ? start.methods : [...known.values()].map((each) => each.asked.method));
    if (layers(0)) available.add("attention");
    at("methods").replaceChildren(
      ...start.methods.map((name) =>
        element(
          "button",
          {
            type: "button", "data-key": `method ${name}`, "aria-pressed": String(name === method()), disabled: !available.has(name),
            title: available.has(name) ? null : "not in this file", onclick: () => go({ method: name }),
          },
          name,
        ),
      ),
    );
    const most = Math.max(...start.models.map((_, model) => layers(model)));
    const maps = mapsOf(0, "cross_encoder_attentions", 0, 0);
    options("layer", most, `${most} (last)`, chosenLayer(0) + 1, most);
    options("head", maps ? maps.length : 0, "mean", state.head, null);
    const word = exchange.replies[0].words[Math.min(state.word, exchange.replies[0].words.length - 1)];
    at("hint").textContent =
      method() === "attention" ? `tinted by what ${word} looks at; click another word to take it` : "layer and head are of the matrix below";
  }

  function options(id, number, special, value, specialValue) {
    const listed = [...Array(number).keys()].map((each) => each + 1).filter((each) => each !== specialValue);
    const made = listed.map((each) => element("option", { value: each, selected: each === value }, String(each)));
    const other = element("option", { value: "", selected: value === specialValue || value === null }, special);
    at(id).replaceChildren(...(id === "head" ? [other, ...made] : [...made, other]));
    at(id).disabled = number === 0;
  }

  function drawnPicture(panelName, side, alt) {
    const key = `${panelName} ${side}`;
    if (!pictures.has(key)) {
      const seen = shownPictures()[side];
      const source = live ? seen.found && `/image/${encodeURIComponent(seen.image_id)}` : embedded.pictures[side];
      const image = source ? element("img", { src: source, alt }) : null;
      const view = { ...seen, names: seen.boxes.map((_, region) => nameOf(seen, region)), image };
      const made = picture(view, {
        choose: (region) => go({ region, side }),
        toggle: canToggle() ? toggle : null,
      });
      made.element.dataset.key = key;
      pictures.set(key, made);
    }
    return pictures.get(key);
  }

  function picturesOf(panelName, tints) {
    const alt = state.images.join(" and ") || "the picture";
    const drawn = shownPictures().map((_, side) => {
      const made = drawnPicture(panelName, side, alt);
      made.show({ tints: tints ? tints.regions[side] : [], kept: kept(), chosen: side === state.side ? state.region : null });
      return made.element;
    });
    return element("div", { class: "pictures" }, ...drawn);
  }

  function keyed(made, prefix) {
    made.querySelectorAll("button").forEach((button, place) => (button.dataset.key = `${prefix} ${place}`));
    return made;
  }

  function panel(name, model, reply, tints) {
    const side = element("div", { class: "told" });
    if (reply) {
      const chooseWord = (word) => go({ word });
      side.append(keyed(words(reply.words, tints.words, { chosen: state.word, choose: chooseWord }), `word ${model}`));
      const all = kept() && whole();
      const before = all ? (text) => all.replies[model].answers.find((each) => each.answer === text)?.probability : null;
      const choose = (answer) => go({ answer });
      side.append(keyed(answers(reply.answers, { chosen: reply.explained, choose, before }), `answer ${model}`));
      const right = looked && looked.questions?.find(({ question }) => question === state.question)?.answer;
      if (right) side.append(element("p", { class: "note right" }, `answer of the split: ${right}`));
      if (before) side.append(element("p", { class: "note" }, "The dark mark on a bar: with all regions."));
      if (reply.fits !== null) {
        side.append(element("h3", {}, "Sentence and picture belong together"), answers([{ answer: "fits", probability: reply.fits }]));
      }
      for (const guess of reply.guesses) {
        const listed = guess.words.map(({ word, probability }) => ({ answer: word, probability }));
        side.append(element("h3", {}, `[MASK], word piece ${guess.place}`), keyed(answers(listed), `guess ${model}`));
      }
      if (reply.words.includes("[MASK]") && !reply.guesses.length)
        side.append(element("p", { class: "note" }, "This checkpoint has no head that guesses words: [MASK] stays one."));
      side.append(...reply.warnings.map((text) => element("p", { class: "warning" }, text)));
    } else if (live && looked) {
      side.append(element("p", { class: "note" }, "Nothing asked yet."));
    }
    const title = start.models.length > 1 ? element("h2", {}, name) : null;
    return element("article", { class: "panel" }, title, picturesOf(`picture ${model}`, tints), side);
  }

  // The second model against the first.
  function difference(replies, tints) {
    const [a, b] = replies;
    const side = element("div", { class: "told" });
    const regions = tints[0].regions.map((of, place) => less(tints[1].regions[place], of));
    if (!same(a.words, b.words)) side.append(element("p", { class: "note" }, "The two read different word pieces."));
    else side.append(words(a.words, less(tints[1].words, tints[0].words)));
    const texts = [...new Set([...a.answers, ...b.answers].map((each) => each.answer))];
    const chance = (reply, text) => reply.answers.find((each) => each.answer === text)?.probability;
    const rows = texts.map((text) => {
      const [first, second] = [chance(a, text), chance(b, text)];
      const cells = [first, second, second - first].map((value) => element("td", { class: "number" }, number(value, 3)));
      return element("tr", {}, element("td", {}, text), ...cells);
    });
    const heads = ["answer", "first", "second", "difference"].map((text) => element("th", {}, text));
    side.append(element("table", { class: "difference" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)));
    side.append(element("p", { class: "note" }, "–: not among its best. Red: more in the second, blue: more in the first."));
    return element("article", { class: "panel" }, element("h2", {}, "second − first"), picturesOf("difference", { regions }), side);
  }

  function toggle(region) {
    const off = new Set(state.off);
    off.has(region) ? off.delete(region) : off.add(region);
    takeAway([...off]);
  }

  function takeAway(off) {
    if (off.length >= shownPictures()[0].boxes.length) {
      draw(); // ticks the box again
      return say("Keep at least one region.", true);
    }
    return go({ off: off.sort((a, b) => a - b) });
  }

  function drawRegions(tints) {
    const all = shownPictures();
    const boxes = all[0].boxes.length;
    const picking = [
      ["all", "all", () => takeAway([])],
      ["only the chosen", "chosen", () => state.region !== null && takeAway([...Array(boxes).keys()].filter((each) => each !== state.region))],
      ["without the chosen", "without", () => state.region !== null && !state.off.includes(state.region) && toggle(state.region)],
    ];
    at("picking").replaceChildren(
      ...(canToggle() ? picking : []).map(([text, key, onclick]) =>
        element("button", { type: "button", "data-key": `pick ${key}`, disabled: key !== "all" && state.region === null, onclick }, text),
      ),
      element("span", { class: "note" }, kept() ? `${kept().length} of ${boxes} looked at` : canToggle() ? "untick to ask without" : ""),
    );
    at("regions").replaceChildren(...all.map((seen, side) => regionTable(seen, side, tints)));
  }

  function regionTable(seen, side, tints) {
    const left = side === 0 ? kept() : null;
    const head = (text, sort) =>
      element("button", { type: "button", "data-key": `sort ${sort} ${side}`, "aria-pressed": String(state.sort === sort), onclick: () => go({ sort }) }, text);
    const heads = [
      element("th", {}, head(shownPictures().length > 1 ? `picture ${side + 1}` : "region", "number")),
      element("th", {}, "detected"),
      ...tints.map((_, model) => element("th", { class: "tint", colspan: 2 }, head(tints.length > 1 ? ["first", "second"][model] : method(), `tint${model}`))),
    ];
    const order = seen.boxes.map((_, region) => region);
    const by = tints[Number(state.sort.replace("tint", ""))];
    if (state.sort.startsWith("tint") && by) order.sort((a, b) => by.regions[side][b] - by.regions[side][a]);
    const rows = order.map((region) => {
      const gone = left !== null && !left.includes(region);
      const box = canToggle()
        ? element("input", { type: "checkbox", checked: !gone, "data-key": `box ${region}`, "aria-label": `look at region ${region}`, onchange: () => toggle(region) })
        : null;
      const sure = [seen.attributes[region], seen.objects[region]].filter(Boolean).map((each) => number(each.confidence));
      const chosen = region === state.region && side === state.side;
      return element(
        "tr",
        {
          class: [chosen && "chosen", gone && "gone"].filter(Boolean).join(" ") || null,
          onclick: (event) => event.target.tagName !== "INPUT" && go({ region: chosen ? null : region, side }),
        },
        element("td", {}, box, ` ${region}`),
        element("td", {}, nameOf(seen, region), element("span", { class: "note" }, sure.length ? ` ${sure.join(" ")}` : "")),
        ...tints.flatMap((of) => {
          const tint = of.regions[side][region];
          const bar = element("span");
          bar.style.width = `${100 * Math.abs(finite(tint))}%`;
          bar.style.background = colour(1, 0.75);
          return [element("td", { class: "tint" }, gone ? null : bar), element("td", { class: "number" }, gone ? "" : number(tint))];
        }),
      );
    });
    const columns = element("thead", {}, element("tr", {}, ...heads));
    return element("table", { class: tints.length > 1 ? "two" : null }, columns, element("tbody", {}, ...rows));
  }

  // Words down, regions across, whoever looks at whom.
  function matrixOf(model) {
    const name = state.direction === "words" ? "cross_encoder_attentions" : "vision_to_language_attentions";
    const maps = mapsOf(model, name, chosenLayer(model), state.side);
    if (!maps) return null;
    const map = headOf(maps);
    return state.direction === "words" ? map : map[0].map((_, word) => map.map((line) => line[word]));
  }

  function drawMatrix() {
    const several = exchange && exchange.replies.length > 1;
    at("direction").value = state.direction;
    at("of-label").hidden = !several;
    at("cell").textContent = shownPictures().length > 1 ? `of picture ${state.side + 1}; click in the other one to see its own` : "";
    if (!exchange || !layers(0)) return at("matrix").replaceChildren(element("p", { class: "note" }, exchange ? "This file holds no attention maps." : "Ask, to see it."));
    const comparable = several && same(exchange.replies[0].words, exchange.replies[1].words);
    if (several) {
      const listed = [["0", "the first"], ["1", "the second"], ...(comparable ? [["difference", "second − first"]] : [])];
      at("of").replaceChildren(...listed.map(([value, text]) => element("option", { value, selected: state.of === value }, text)));
    }
    const model = several && state.of === "1" ? 1 : 0;
    const seen = exchange.replies[0].pictures[state.side] ?? exchange.replies[0].pictures[0];
    const pieces = exchange.replies[model].words;
    const map = comparable && state.of === "difference" ? matrixOf(1).map((line, word) => less(line, matrixOf(0)[word])) : matrixOf(model);
    const most = Math.max(...map.flat().map(Math.abs)) || 1;
    const left = kept();
    const regions = seen.boxes.map((_, region) => region);
    const heads = regions.map((region) => element("th", { class: region === state.region ? "on" : null, title: nameOf(seen, region) }, String(region)));
    const rows = pieces.map((piece, word) => {
      const cells = regions.map((region) => {
        const gone = left !== null && !left.includes(region);
        const on = word === state.word && region === state.region;
        const cell = element("td", { class: [on && "on", gone && "gone"].filter(Boolean).join(" ") || null });
        cell.style.backgroundColor = gone ? "" : colour(map[word][region] / most, 1);
        cell.title = `${piece} · ${region} ${nameOf(seen, region)}: ${number(map[word][region], 3)}`;
        cell.dataset.word = word;
        cell.dataset.region = region;
        return cell;
      });
      return element("tr", {}, element("th", { class: word === state.word ? "on" : null, title: piece }, piece), ...cells);
    });
    const table = element(
      "table",
      {
        tabindex: 0, "data-key": "matrix", class: regions.length > 40 ? "dense" : null, "aria-label": "words by regions",
        onclick: ({ target }) => target.dataset.region && go({ word: Number(target.dataset.word), region: Number(target.dataset.region) }),
        onkeydown: (event) => {
          const down = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0, right = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0;
          if (!down && !right) return;
          event.preventDefault();
          const within = (value, all) => Math.min(Math.max(value, 0), all - 1);
          go({ word: within(state.word + down, pieces.length), region: state.region === null ? 0 : within(state.region + right, regions.length) });
        },
      },
      element("thead", {}, element("tr", {}, element("th"), ...heads)),
      element("tbody", {}, ...rows),
    );
    at("matrix").replaceChildren(table);
    if (state.region !== null && state.region < regions.length && state.word < pieces.length) {
      const value = number(map[state.word][state.region], 3);
      at("cell").textContent = `${pieces[state.word]} · ${state.region} ${nameOf(seen, state.region)}: ${value}`;
    }
  }

  // As detector_difference in lxmert/config.py: NAME, or NAME [weights 0123456789ab, boxes 36]; what one leaves open is no difference.
  function detectorsDiffer(one, other) {
    const [first, second] = [one, other].map((text) => {
      const found = /^(.*) \[([^\]]*)\]$/.exec(text);
      const parts = found ? found[2].split(", ").map((part) => [part.split(" ", 1)[0], part]) : [];
      return { name: found ? found[1] : text, parts: Object.fromEntries(parts) };
    });
    const known = Object.keys(first.parts).filter((key) => key in second.parts);
    return first.name !== second.name || known.some((key) => first.parts[key] !== second.parts[key]);
  }

  function drawHonesty() {
    const from = [...new Set(shownPictures().map((each) => each.detector))];
    const lines = from.length ? [`Regions found by ${from.map((each) => each ?? "a detector that is not known").join(", ")}.`] : [];
    for (const { name, detector } of start.models) {
      if (detector && from.length && from.every((each) => each && !detectorsDiffer(each, detector))) lines.push(`${name} was trained on the same detector's.`);
      else if (live || detector) lines.push(`${name} was trained on regions of ${detector ?? "a detector that is not known: whether these fit it cannot be told"}.`);
    }
    at("honesty").replaceChildren(element("span", { class: "note" }, lines.join(" ")));
    const differ = start.models.some((model) => model.detector && from.some((each) => each && detectorsDiffer(each, model.detector)));
    if (differ)
      at("honesty").append(
        element("span", { class: "warning" }, " Not the same detector: features of another one mean something else to the model."),
      );
  }

  // ------------------------------------------------------------------------------------------- controls

  function save(name, content, kind) {
    const link = element("a", { href: URL.createObjectURL(new Blob([content], { type: kind })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function step(by) {
    if (!looked || looked.place === null) return;
    try {
      const { entries } = await (await call(`/api/images?start=${Math.max(looked.place + by, 0)}`)).json();
      if (entries.length) await go({ images: entries[0], answer: null, region: null, side: 0, off: [] }, true);
    } catch (error) {
      say(error.message, true);
    }
  }

  function listen() {
    at("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      go({ question: at("question").value, answer: null, word: 0 }, true);
    });
    at("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        at("ask").requestSubmit();
      } else if (event.key === "Escape") at("question").blur();
    });
    at("previous").addEventListener("click", () => step(-1));
    at("next").addEventListener("click", () => step(1));
    at("layer").addEventListener("change", () => go({ layer: Number(at("layer").value) || null }));
    at("head").addEventListener("change", () => go({ head: Number(at("head").value) || null }));
    at("direction").addEventListener("change", () => go({ direction: at("direction").value }));
    at("of").addEventListener("change", () => go({ of: at("of").value }));
    at("json").addEventListener("click", () => {
      const content = { address: location.href, models: start.models, ...(exchange ?? looked) };
      save("lxmert.json", JSON.stringify(content, null, 1), "application/json");
    });
    at("save").hidden = !live;
    at("save").addEventListener("click", async () => {
      if (!exchange) return say("Ask something first: the file shows the answer.", true);
      busy("writing the page …");
      try {
        save("lxmert.html", await (await call("/api/page", sent(asking()))).text(), "text/html");
        busy("");
      } catch (error) {
        busy("");
        say(error.message, true);
      }
    });
    document.addEventListener("keydown", (event) => {
      const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
      if (writing || event.ctrlKey || event.metaKey || event.altKey || !live) return;
      if (event.key === "/") at("question").focus();
      else if (event.key === "[") step(-1);
      else if (event.key === "]") step(1);
      else return;
      event.preventDefault();
    });
    addEventListener("popstate", enter);
  }

  function inputs() {
    const many = start.models[0].pictures;
    const listed = [...Array(many).keys()].map((place) => {
      const input = element("input", { list: "images", spellcheck: "false", "aria-label": many > 1 ? `image ${place + 1}` : "image" });
      input.addEventListener("change", () => {
        const images = [...state.images];
        images[place] = input.value.trim();
        go({ images, answer: null, region: null, side: 0, off: [] }, true);
      });
      input.addEventListener("input", async () => {
        const query = new URLSearchParams({ like: input.value.trim(), count: 30 });
        const { entries } = await (await call(`/api/images?${query}`)).json().catch(() => ({ entries: [] }));
        const ids = [...new Set(entries.map((entry) => entry[place]))];
        at("images").replaceChildren(...ids.map((value) => element("option", { value })));
      });
      return input;
    });
    at("ids").replaceChildren(...listed);
  }

  // What the address says, or what is there to begin with.
  async function enter() {
    state = readAddress();
    if (!live) {
      const first = embedded.exchanges[0];
      const { asked, replies } = first;
      const answer = state.answer ?? replies[0].explained;
      Object.assign(state, { images: asked.images, question: asked.question, answer, method: state.method ?? asked.method, off: [] });
      if (first.asked.kept) state.off = first.replies[0].pictures[0].boxes.map((_, region) => region).filter((region) => !first.asked.kept.includes(region));
    } else if (state.images.length !== start.models[0].pictures) state.images = start.first;
    if (live) writeAddress(false);
    await show();
  }

  async function begin() {
    try {
      if (live) {
        start = await (await call("/api/start")).json();
        inputs();
      } else {
        embedded.exchanges.forEach((each, place) => known.set(String(place), each));
        looked = { pictures: embedded.exchanges[0].replies[0].pictures, questions: [], place: null };
      }
    } catch (error) {
      return say(error.message, true);
    }
    at("keys").hidden = !live;
    at("about").textContent = start.models
      .map((model) => [model.name, model.kind, `${model.answers.toLocaleString("en")} answers`].filter(Boolean).join(" · "))
      .join("  |  ");
    listen();
    await enter();
  }

  begin();
})();
