"use strict";
// The one drawing of what a question, a picture and an answer are to each other: the picture with its regions, tinted
// word pieces, answers with bars. Plain functions that make elements and never read markup from texts.
// A tint is a number from -1 to 1: how much, below zero in the other colour.

const drawing = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const NAMED = 3; // regions that carry their name unasked

  // element("p", {class: "note", onclick: f}, "text", child, ...)
  function element(name, attributes = {}, ...children) {
    const made = name === "svg" || name === "rect" ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const finite = (tint) => (Number.isFinite(tint) ? Math.min(Math.max(tint, -1), 1) : 0);
  const hue = (tint) => (tint < 0 ? "var(--cold)" : "var(--hot)");
  const colour = (tint, most = 0.62) => `rgb(${hue(tint)} / ${(most * Math.abs(finite(tint))).toFixed(3)})`;
  const number = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

  // Whether the names of two boxes would lie on each other.
  const near = (a, b) => b && Math.abs(a[1] - b[1]) < 0.045 && Math.abs(a[0] - b[0]) < 0.3;

  // A picture: view = {boxes, names, frames, size, image, alt}; image is an element, or null where there is none at
  // hand; frames = [{name, box, dashed}] are shown whatever is chosen.
  // `choose(region | null)` is called when one is clicked. The result's `show({tints, kept, chosen})` draws again.
  function picture(view, { choose = null, toggle = null } = {}) {
    const svg = element("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    const names = element("div", { class: "names" });
    const frame = element(
      "div",
      {
        class: "picture",
        tabindex: choose ? 0 : null,
        role: choose ? "application" : null,
        "aria-label": choose ? "picture with its regions: arrow keys go from one to the next, space takes it away" : null,
      },
      view.image,
      svg,
      names,
    );
    if (!view.image) {
      const [width, height] = view.size || [4, 3];
      frame.classList.add("blank");
      frame.style.aspectRatio = `${width} / ${height}`;
    }
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const regions = view.boxes.map(([x1, y1, x2, y2]) =>
      element("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) }),
    );
    // Small ones on top of large ones, so that each can be clicked.
    const order = view.boxes.map((_, region) => region).sort((a, b) => area(view.boxes[b]) - area(view.boxes[a]));
    svg.append(...order.map((region) => regions[region]));
    const titles = element("div", { class: "names" });
    const frames = view.frames || [];
    const outlined = (kind, { box: [x1, y1, x2, y2] }) =>
      svg.append(element("rect", { class: `frame ${kind}`, x: x1, y: y1, width: x2 - x1, height: y2 - y1 }));
    // Dashes last: where two boxes are one, both colours are to be seen.
    for (const each of frames) outlined("halo", each);
    for (const each of frames.filter(({ dashed }) => !dashed)) outlined("solid", each);
    for (const each of frames.filter(({ dashed }) => dashed)) outlined("dashed", each);
    for (const { name, box, dashed } of frames) {
      const [x1, y1, , y2] = box;
      const title = element("span", { class: `name frame ${dashed ? "dashed" : "solid"}` }, name);
      // Above and below the box, not on what it shows.
      if (dashed) title.style.top = `min(${100 * y2}%, 100% - 1.5em)`;
      else title.style.bottom = `min(${100 * (1 - y1)}%, 100% - 1.5em)`;
      title.style.left = `min(${100 * x1}%, 100% - 4.5em)`;
      titles.append(title);
    }
    if (frames.length) frame.append(titles);
    let shown = { tints: [], kept: null, chosen: null };
    if (choose) {
      regions.forEach((rect, region) =>
        rect.addEventListener("click", () => choose(region === shown.chosen ? null : region)),
      );
      frame.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const all = regions.length;
        if (step) choose(shown.chosen === null ? (step > 0 ? 0 : all - 1) : (shown.chosen + step + all) % all);
        else if (event.key === "Escape") choose(null);
        else if (event.key === " " && toggle && shown.chosen !== null) toggle(shown.chosen);
        else return;
        event.preventDefault();
      });
    }

    function label(region, extra) {
      const [x1, y1, x2] = view.boxes[region];
      const text = [region, (view.names && view.names[region]) || ""].join(" ").trim();
      const made = element("span", { class: `name ${extra}` }, text);
      made.style.top = `${100 * y1}%`;
      if (x1 > 0.6) made.style.right = `${100 * (1 - x2)}%`;
      else made.style.left = `${100 * x1}%`;
      return made;
    }

    function show(changes) {
      shown = { ...shown, ...changes };
      const { tints, kept, chosen } = shown;
      const gone = (region) => kept !== null && !kept.includes(region);
      regions.forEach((rect, region) => {
        const tint = gone(region) ? 0 : finite(tints[region]);
        // Faint within, so that a thing keeps its colour; what counts is the frame.
        rect.style.fill = colour(tint, 0.1);
        rect.style.stroke = Math.abs(tint) > 0.02 ? `rgb(${hue(tint)} / ${(0.25 + 0.75 * Math.abs(tint)).toFixed(3)})` : "";
        rect.style.strokeWidth = (1.2 + 2 * Math.abs(tint)).toFixed(2);
        rect.classList.toggle("gone", gone(region));
        rect.classList.toggle("chosen", region === chosen);
        const name = (view.names && view.names[region]) || "";
        let title = rect.querySelector("title");
        if (!title) rect.append((title = document.createElementNS(SVG, "title")));
        title.textContent = `${region} ${name}${tints.length ? ` · ${number(tints[region])}` : ""}${gone(region) ? " · taken away" : ""}`;
      });
      const strongest = []; // those that have a name to tell
      for (const region of order
        .filter((each) => view.names && !gone(each) && Math.abs(finite(tints[each])) > 0.2)
        .sort((a, b) => Math.abs(tints[b]) - Math.abs(tints[a]))) {
        const apart = [...strongest, ...(chosen === null ? [] : [chosen])].every((other) => !near(view.boxes[region], view.boxes[other]));
        if (apart && strongest.length < NAMED) strongest.push(region);
      }
      names.replaceChildren(
        ...strongest.reverse().map((region) => label(region, "")),
        ...(chosen === null || chosen >= regions.length ? [] : [label(chosen, "chosen")]),
      );
    }
    show({});
    return { element: frame, show };
  }

  // The word pieces as the model reads them. `choose(place)` makes buttons of them.
  function words(pieces, tints, { chosen = null, choose = null } = {}) {
    const line = element("div", { class: "words" });
    pieces.forEach((piece, place) => {
      const title = tints ? `${piece} · ${number(tints[place])}` : piece;
      const attributes = { class: "word", title, ...(choose && { type: "button", "aria-pressed": String(place === chosen) }) };
      const made = element(choose ? "button" : "span", attributes, piece);
      made.style.background = tints ? colour(tints[place]) : "";
      if (choose) made.addEventListener("click", () => choose(place));
      line.append(made);
    });
    return line;
  }

  // Answers with bars: [{answer, probability}]. `before` gives what each had, as a mark on its bar.
  function answers(list, { chosen = null, choose = null, before = null } = {}) {
    const table = element("div", { class: "answers" });
    for (const { answer, probability } of list) {
      const bar = element("span", { class: "bar" });
      const fill = element("span", { class: "fill" });
      fill.style.width = `${100 * Math.max(finite(probability), 0)}%`;
      bar.append(fill);
      const was = before ? before(answer) : null;
      if (was !== null && was !== undefined) {
        const mark = element("span", { class: "was", title: `with all regions: ${number(was, 3)}` });
        mark.style.left = `${100 * finite(was)}%`;
        bar.append(mark);
      }
      const parts = [element("span", { class: "text" }, answer), bar, element("span", { class: "number" }, number(probability, 3))];
      const pressed = { type: "button", "aria-pressed": String(answer === chosen), title: `explain ${answer}` };
      const row = element(choose ? "button" : "div", { class: "answer", ...(choose && pressed) }, ...parts);
      if (choose) row.addEventListener("click", () => choose(answer));
      table.append(row);
    }
    return table;
  }

  return { element, picture, words, answers, colour, finite, number };
})();
