// The report's cards, drawn from the texts that are there without a script and from the numbers beside them.
(() => {
  const texts = (parent, query) => [...parent.querySelectorAll(query)].map((each) => each.textContent);
  const cards = document.querySelectorAll(".card");
  JSON.parse(document.getElementById("numbers").textContent).forEach((example, place) => {
    const card = cards[place];
    const [frames, words, answers] = [".views", ".words", ".answers"].map((query) => card.querySelector(query));
    const drawn = example.views.map((view, side) => {
      const image = frames.children[side].querySelector("img");
      const made = drawing.picture({ ...view, image }, { choose: (chosen) => made.show({ chosen }) });
      made.show({ tints: view.tints });
      made.element.append(...frames.children[side].querySelectorAll(".label"));
      return made.element;
    });
    const list = texts(answers, ".text").map((answer, number) => ({ answer, probability: example.answers[number] }));
    frames.replaceChildren(...drawn);
    words.replaceWith(drawing.words(texts(words, ".word"), example.words));
    answers.replaceWith(drawing.answers(list));
  });
})();
