// The latent explorer of the report and of a folder. Plain JavaScript: no library, no request but for the folder's own files.
// Every text of a model or a data set reaches the page as a text node, never as markup.
(() => {
  "use strict";
  const PAGE = 50;
  const STEP = 200;

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "class") made.className = value;
      else if (key === "style") Object.assign(made.style, value);
      else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  }

  const foreign = (text, name) => element(name || "span", { dir: "auto", class: "foreign" }, String(text));
  const whole = (value) => Number(value).toLocaleString("en-US");
  const number = (value, digits) => (value === null || value === undefined ? "—" : signed(Number(value), digits || 4));
  const share = (value) => (value === null || value === undefined ? "—" : `${(100 * value).toFixed(2)} %`);

  function signed(value, digits) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e5 || size < 1e-4 ? size.toExponential(digits - 1) : String(Number(size.toPrecision(digits)));
    return (value < 0 ? "−" : "+") + text;
  }

  // ---- where pages come from -------------------------------------------------------------------------------------------------

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  async function embedded(text) {
    const data = await unpacked(text);
    return {
      index: data.index,
      latent: async (place) => data.latents[place],
      item: async (place) => data.items[place],
    };
  }

  const waiting = new Map();
  window.explorerData = (name, value) => {
    const asked = waiting.get(name);
    if (asked) asked.answer(value);
  };

  function loaded(name) {
    if (!waiting.has(name)) {
      const asked = {};
      asked.promise = new Promise((answer, refuse) => Object.assign(asked, { answer, refuse }));
      waiting.set(name, asked);
      const script = element("script", { src: `data/${name}.js`, onerror: () => asked.refuse(new Error(`data/${name}.js is not there`)) });
      document.head.append(script);
    }
    return waiting.get(name).promise;
  }

  async function inFolder() {
    const index = await loaded("index");
    const page = async (kind, place) => (await loaded(`${kind}-${Math.floor(place / index.chunk)}`))[place % index.chunk];
    return { index, latent: (place) => withTexts(page, place), item: (place) => page("items", place) };
  }

  // A latent's page in a folder says where its texts stand, so that each text is on the disk once.
  async function withTexts(page, place) {
    const found = await page("latents", place);
    const contexts = found.contexts.map(async (one) => {
      const texts = await page("texts", one.item);
      const side = (name) => [one[name][0], texts[name][one[name][0]], ...one[name].slice(2)];
      return { ...one, prompt: texts.prompt, chosen: side("chosen"), rejected: side("rejected") };
    });
    return { ...found, contexts: await Promise.all(contexts) };
  }

  // ---- one explorer ------------------------------------------------------------------------------------------------------------

  class Explorer {
    constructor(root, source) {
      this.root = root;
      this.anchor = root.id;
      this.source = source;
      this.index = source.index;
      this.latentPlace = new Map(this.index.latentRows.map((row, place) => [row[0], place]));
      this.itemPlace = new Map(this.index.itemRows.map((row, place) => [row[0], place]));
      this.lists = { latents: { sort: 1, down: true, search: "", page: 0 }, items: { sort: -1, down: false, search: "", page: 0 } };
    }

    href(...parts) {
      return `#${[this.anchor, ...parts].join("/")}`;
    }

    async show(moved) {
      const [anchor, kind, asked] = location.hash.slice(1).split("/");
      const mine = anchor === this.anchor;
      // An address in another part of the page changes nothing here; the page's own, where "back" ends, begins anew.
      if (anchor && !mine && this.route) return;
      const route = (mine && kind) || "latents";
      this.route = route;
      let view;
      if (route === "latent" && this.latentPlace.has(Number(asked))) view = await this.latentView(Number(asked));
      else if (route === "item" && this.itemPlace.has(Number(asked))) view = await this.itemView(Number(asked));
      else if (route === "latent" || route === "item") view = this.absent(route, asked);
      else if (route === "items") view = this.itemList();
      else view = this.latentList();
      this.root.replaceChildren(this.head(route), view);
      if (mine && moved) {
        const heading = view.querySelector("h3") || this.root;
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
        this.root.scrollIntoView();
      }
    }

    head(route) {
      const tab = (name, text) =>
        element("a", { href: this.href(name), "aria-current": route.startsWith(name.slice(0, -1)) ? "page" : null }, text);
      return element("nav", { class: "tabs", "aria-label": "Explorer" }, tab("latents", "Latents"), tab("items", "Conversations"));
    }

    absent(kind, asked) {
      const rule = kind === "latent" ? `Latents with a page: ${this.index.rules.latents}.` : `Conversations with a page: ${this.index.rules.items}.`;
      return element("div", {}, element("h3", {}, `No page of ${kind} ${asked} here`), element("p", {}, rule), this.everything());
    }

    everything() {
      return element("p", { class: "note" }, "All of them, in a folder of their own: ", element("code", {}, this.index.command));
    }

    name(latent) {
      const row = this.latentPlace.has(latent) ? this.index.latentRows[this.latentPlace.get(latent)] : null;
      const label = `latent ${latent}`;
      const link = row ? element("a", { href: this.href("latent", latent) }, label) : element("span", {}, label);
      return element("span", { class: "named" }, link, row && row[4] ? this.said(row[4]) : null);
    }

    // An explanation beside a number: three lines of it, whole on the latent's page.
    said(text) {
      const made = foreign(text, "small");
      made.classList.add("said");
      made.title = text;
      return made;
    }

    // ---- lists -----------------------------------------------------------------------------------------------------------------

    table(state, columns, rows, line, redraw) {
      const heads = columns.map(([label, place, title], order) => {
        const active = state.sort === place;
        const press = () => {
          state.down = active ? !state.down : true;
          state.sort = place;
          state.page = 0;
          redraw(`th:nth-child(${order + 1}) button`);
        };
        const arrow = active ? (state.down ? " ▼" : " ▲") : "";
        const button = place === null ? label : element("button", { type: "button", title, onclick: press }, label + arrow);
        return element("th", { scope: "col", class: label === "subset" ? "left" : "", "aria-sort": active ? (state.down ? "descending" : "ascending") : null }, button);
      });
      const pages = Math.max(1, Math.ceil(rows.length / PAGE));
      state.page = Math.min(state.page, pages - 1);
      const shown = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
      const turn = (to, text, mark) =>
        element("button", { type: "button", class: mark, disabled: to < 0 || to >= pages, onclick: () => ((state.page = to), redraw(`.${mark}`)) }, text);
      const pager = element(
        "p",
        { class: "pager" },
        turn(state.page - 1, "← previous", "before"),
        ` ${whole(rows.length)} found, page ${state.page + 1} of ${pages} `,
        turn(state.page + 1, "next →", "after"),
      );
      const body = shown.length ? shown.map(line) : element("tr", {}, element("td", { colspan: columns.length }, "Nothing matches."));
      const grid = element("table", { class: "list" }, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, body));
      return [element("div", { class: "scroll", tabindex: 0 }, grid), pager];
    }

    sorted(rows, state, size) {
      if (state.sort < 0) return rows;
      const key = (row) => {
        const value = row[state.sort];
        if (value === null || value === "") return null;
        return typeof value === "number" ? (size.includes(state.sort) ? Math.abs(value) : value) : String(value).toLowerCase();
      };
      const order = state.down ? -1 : 1;
      return [...rows].sort((one, other) => {
        const [left, right] = [key(one), key(other)];
        if (left === right) return 0;
        if (left === null) return 1;
        if (right === null) return -1;
        return left < right ? -order : order;
      });
    }

    listing(state, label, found, columns, line) {
      const place = element("div", {});
      const said = element("p", { class: "quiet", role: "status" });
      const redraw = (focus) => {
        const rows = found();
        said.textContent = state.search ? `${whole(rows.length)} match` : "";
        place.replaceChildren(...this.table(state, columns, rows, line, redraw));
        const wanted = focus && place.querySelector(focus);
        if (wanted) wanted.focus();
      };
      const search = element("input", {
        type: "search",
        value: state.search,
        "aria-label": label,
        placeholder: label,
        oninput: (event) => ((state.search = event.target.value), (state.page = 0), redraw()),
      });
      redraw();
      return [element("div", { class: "search" }, search, said), place];
    }

    latentList() {
      const { index } = this;
      const state = this.lists.latents;
      const explained = index.explain === "";
      const columns = [
        ["latent", 0, "by number"],
        ["head weight", 1, "by size, whatever the sign"],
        ["fires in", 2, "share of completions"],
        ["mean contribution", 3, "by size; over all completions, where it does not fire 0"],
      ];
      if (explained) columns.push(["score", 5, "1 to 5, of the explanation"], ["detection", 6, "balanced accuracy of the explanation"]);
      const found = () => {
        const asked = state.search.trim().toLowerCase();
        const rows = asked ? index.latentRows.filter((row) => String(row[0]) === asked || row[4].toLowerCase().includes(asked)) : index.latentRows;
        return this.sorted(rows, state, [1, 3]);
      };
      const line = (row) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, element("a", { href: this.href("latent", row[0]) }, String(row[0])), row[4] ? this.said(row[4]) : null),
          element("td", {}, number(row[1])),
          element("td", {}, row[2] === 0 ? "never" : share(row[2])),
          element("td", {}, number(row[3])),
          explained ? [element("td", {}, row[5] === null ? "—" : String(row[5])), element("td", {}, share(row[6]))] : null,
        );
      const silent = `${whole(index.never)} of ${whole(index.latents)} never fire in the ${whole(index.completions)} completions.`;
      const text = index.latents === 0 ? "This model has no latents." : `Shown: ${index.rules.latents}. ${silent}`;
      const fully = index.reads === "latents" ? "" : " The head of this model reads all pre-activations, so a latent counts as firing where it is above 0.";
      const why = explained ? null : element("p", { class: "note" }, "No explanations of this model are in the store; run: ", element("code", {}, index.explain));
      const label = explained ? "Latent's number, or words of its explanation" : "Latent's number";
      const list = index.latents === 0 ? null : this.listing(state, label, found, columns, line);
      return element("div", {}, element("h3", {}, "Latents"), element("p", {}, text + fully), why, list, this.summary());
    }

    summary() {
      const { index } = this;
      const rows = index.columns.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, foreign(name)), element("td", {}, share(value))));
      const missing = index.missing.map(([name, reason]) => element("li", {}, foreign(name), ": ", foreign(reason)));
      return element(
        "details",
        {},
        element("summary", {}, `Accuracy on ${index.benchmark}, as it is`),
        element("table", { class: "small" }, element("tbody", {}, rows)),
        missing.length ? [element("p", {}, "Not there:"), element("ul", {}, missing)] : null,
      );
    }

    itemList() {
      const { index } = this;
      const state = this.lists.items;
      const columns = [["conversation", 1, "by id"], ["subset", 2, "by name"], ["margin", 3, "lowest chosen minus highest rejected reward"]];
      const found = () => {
        const asked = state.search.trim().toLowerCase();
        const rows = asked ? index.itemRows.filter((row) => `${row[1]} ${row[2]}`.toLowerCase().includes(asked)) : index.itemRows;
        return this.sorted(rows, state, []);
      };
      const line = (row) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, element("a", { href: this.href("item", row[0]) }, foreign(row[1] || String(row[0])))),
          element("td", { class: "left" }, foreign(row[2] || "—")),
          element("td", {}, `${number(row[3])} ${row[3] > 0 ? "right" : row[3] < 0 ? "wrong" : "tied"}`),
        );
      return element("div", {}, element("h3", {}, "Conversations"), element("p", {}, `Shown: ${index.rules.items}.`), this.listing(state, "Id or subset", found, columns, line));
    }

    // ---- a latent --------------------------------------------------------------------------------------------------------------

    async latentView(latent) {
      const place = this.latentPlace.get(latent);
      const [row, page] = [this.index.latentRows[place], await this.source.latent(place)];
      const fires = page.fired[0] + page.fired[1];
      const score = row[5] === null ? null : `Explanation's score ${row[5]} of 5`;
      const detection = row[6] === null ? null : `detection ${share(row[6])} (balanced accuracy)`;
      const facts = [`Head weight ${number(row[1])}`, fires ? `fires in ${share(row[2])} of completions` : "never fires here", `mean contribution ${number(row[3])}`];
      return element(
        "div",
        {},
        element("h3", {}, `Latent ${latent}`),
        row[4] ? foreign(row[4], "p") : element("p", { class: "note" }, this.index.explain ? "No explanations of this model are in the store; run: " : `Not explained${page.status ? ` (${page.status})` : ""}.`, this.index.explain ? element("code", {}, this.index.explain) : null),
        element("p", {}, [...facts, score, detection].filter(Boolean).join("; ") + "."),
        fires ? null : element("p", { class: "note" }, "A latent that never fires adds nothing to any reward here: removing or doubling it changes nothing."),
        fires ? [this.effects(page), this.where(page), this.contexts(page)] : null,
        this.collected(page),
        this.neighbours(page),
        this.beside(this.index.latentRows, place, "latent"),
      );
    }

    beside(rows, place, kind) {
      const link = (row, text) => (row ? element("a", { href: this.href(kind, row[0]) }, text) : element("span", {}, text));
      return element("p", { class: "pager" }, link(rows[place - 1], "← previous"), element("a", { href: this.href(`${kind}s`) }, "list"), link(rows[place + 1], "next →"));
    }

    effects(page) {
      const known = page.removed.some((value) => value !== null);
      const change = (value, base) => (value === null ? "—" : `${share(value)} (${number(100 * (value - base), 3)})`);
      const rows = this.index.columns.map(([name, base], place) =>
        element("tr", {}, element("th", { scope: "row" }, foreign(name)), element("td", {}, share(base)), element("td", {}, change(page.removed[place], base)), element("td", {}, change(page.doubled[place], base))),
      );
      const spread = ["chosen", "rejected"].map((side, place) =>
        element("tr", {}, element("th", { scope: "row" }, `${side} rewards`), page.spread.map((line) => element("td", {}, `${number(line[2 * place])} ± ${line[2 * place + 1]}`))),
      );
      const head = element("tr", {}, ["", "as it is", "removed", "doubled"].map((text) => element("th", { scope: "col" }, text)));
      return [
        element("h4", {}, "What removing or doubling it does"),
        element("p", { class: "quiet" }, "Computed from the stored latents, exactly: a reward is linear in them. Accuracy, with the change in points; rewards as mean ± standard deviation."),
        known ? null : element("p", { class: "note" }, "Accuracies after an edit were computed for the largest head weights alone: the head of this model reads all pre-activations."),
        element("div", { class: "scroll", tabindex: 0 }, element("table", { class: "list" }, element("thead", {}, head), element("tbody", {}, rows, spread))),
        this.histograms(page),
      ];
    }

    histograms(page) {
      if (!page.histograms.length) return null;
      const base = this.index.histogram;
      const [removedChosen, removedRejected, doubledChosen, doubledRejected] = page.histograms;
      const sets = [["as it is", base.chosen, base.rejected], ["removed", removedChosen, removedRejected], ["doubled", doubledChosen, doubledRejected]];
      const most = Math.max(1, ...sets.flatMap(([, chosen, rejected]) => [...chosen, ...rejected]));
      const drawn = sets.map(([label, chosen, rejected]) => {
        const bars = (counts, side) =>
          counts.map((count, place) => element("i", { class: side, style: { left: `${(100 * place) / counts.length}%`, width: `${100 / counts.length}%`, height: `${(50 * count) / most}%` } }));
        const plot = element("div", { class: "histogram", role: "img", "aria-label": `Rewards ${label}: chosen above the line, rejected below; numbers stand in the table` }, bars(chosen, "chosen"), bars(rejected, "rejected"));
        return element("figure", {}, element("figcaption", {}, label), plot, element("div", { class: "ends" }, element("span", {}, number(base.low, 3)), element("span", {}, number(base.high, 3))));
      });
      return element("div", {}, element("p", { class: "quiet" }, "Rewards: chosen above the line, rejected below; those beyond the ends stand in the last bin."), element("div", { class: "plots" }, drawn));
    }

    where(page) {
      const groups = this.index.groups;
      const rows = [];
      for (let place = 0; place < groups.length; place += 2) {
        const name = groups[place].style ? `style: ${groups[place].style}` : groups[place].subset || "all";
        const cells = [place, place + 1].map((one) => [
          element("td", {}, groups[one].completions ? share(page.fired[one] / groups[one].completions) : "—"),
          element("td", {}, number(page.means[one])),
        ]);
        rows.push(element("tr", {}, element("th", { scope: "row" }, foreign(name)), cells));
      }
      const heads = ["", "chosen: fires in", "adds, mean", "rejected: fires in", "adds, mean"].map((text) => element("th", { scope: "col" }, text));
      return [element("h4", {}, "Where it fires"), element("div", { class: "scroll", tabindex: 0 }, element("table", { class: "list" }, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows)))];
    }

    contexts(page) {
      const kept = this.index.exact ? "" : " Among the largest contributions that are kept of each completion.";
      const cards = page.contexts.map((one) => {
        const link = this.itemPlace.has(one.item) ? element("a", { href: this.href("item", one.item) }, "open this conversation") : null;
        const side = (name) => {
          const [place, text, token, activation, contribution] = one[name];
          const active = activation ? `activation ${number(activation)}, adds ${number(contribution)}` : "not active";
          return element("div", { class: "side" }, element("b", {}, `${name} ${place + 1}`), element("span", { class: "quiet" }, ` ${active}`), this.marked(text, token));
        };
        return element("article", {}, element("div", { class: "prompt" }, foreign(one.prompt), " ", link), element("div", { class: "sides" }, side("chosen"), side("rejected")));
      });
      return [
        element("h4", {}, "Conversations in which it is most active"),
        element("p", { class: "quiet" }, `The reward is read at the marked token, the end of the reply; of each side the reply in which the latent is most active.${kept}`),
        cards.length ? cards : element("p", {}, "None is kept."),
      ];
    }

    marked(text, token) {
      return element("div", { class: "reply", dir: "auto" }, foreign(text), element("mark", { title: "the scored token" }, token.trim() || JSON.stringify(token)));
    }

    collected(page) {
      if (!page.collected.length) return null;
      return [
        element("h4", {}, "Contexts that were shown to the explainer"),
        element("p", { class: "quiet" }, "It is active at the end of each."),
        element("ul", { class: "collected" }, page.collected.map(([text, activation]) => element("li", {}, foreign(text), " ", element("span", { class: "quiet" }, `activation ${number(activation)}`)))),
      ];
    }

    neighbours(page) {
      const lines = page.neighbours.map(([latent, cosine]) => element("li", {}, this.name(latent), ` cosine ${cosine === null ? "—" : cosine.toFixed(3)}`));
      return [element("h4", {}, "Nearest by decoder"), lines.length ? element("ul", { class: "collected" }, lines) : element("p", {}, "None: no other latent.")];
    }

    // ---- a conversation --------------------------------------------------------------------------------------------------------

    async itemView(item) {
      const place = this.itemPlace.get(item);
      const page = await this.source.item(place);
      const turns = page.prompt.map(([role, content]) => element("div", { class: "turn" }, element("b", {}, role), foreign(content, "div")));
      const result = element("div", {});
      const pick = { chosen: 0, rejected: 0 };
      const of = (side) => page.completions.filter((one) => one.side === side);
      const draw = () => {
        const [better, worse] = [of("chosen")[pick.chosen], of("rejected")[pick.rejected]];
        const waterfalls = [better, worse].map((one) => element("div", { class: "side" }, element("h4", {}, `${one.side} ${one.place + 1}`), one.cut ? element("p", { class: "note" }, "Cut to the longest length before it was scored.") : null, this.marked(one.text, one.token), this.waterfall(one)));
        result.replaceChildren(element("div", { class: "sides" }, waterfalls), this.difference(better, worse));
      };
      const choose = (side) => {
        const options = of(side).map((one, order) => element("option", { value: order }, `${side} ${one.place + 1}, reward ${number(one.reward, 6)}`));
        return element("label", {}, `${side}: `, element("select", { onchange: (event) => ((pick[side] = Number(event.target.value)), draw()) }, options));
      };
      const left = page.left ? element("p", { class: "quiet" }, `${page.left} more completions are not shown here: of each side those nearest to the other stand first.`) : null;
      draw();
      return element(
        "div",
        {},
        element("h3", {}, "Conversation ", foreign(page.id || String(item)), page.subset ? [" of ", foreign(page.subset)] : null),
        turns,
        element("div", { class: "choose" }, choose("chosen"), choose("rejected")),
        left,
        result,
        this.beside(this.index.itemRows, place, "item"),
      );
    }

    // A reward as bars that begin where the one before ended: the largest parts, the others as one, the constant, the reward.
    waterfall(one) {
      const most = this.index.rules.contributions || Infinity;
      const shown = one.parts.slice(0, most);
      const others = [...one.parts.slice(most).map((part) => part[2]), one.others[1]];
      const count = one.parts.length - shown.length + one.others[0];
      const bars = shown.map(([latent, activation, contribution]) => ({ label: this.name(latent), detail: `activation ${number(activation)}`, value: contribution }));
      return this.bars(bars, { others: sum(others), count, total: one.reward, of: `reward, ${one.side} ${one.place + 1}` });
    }

    difference(better, worse) {
      const most = this.index.rules.contributions || Infinity;
      const values = new Map();
      better.parts.forEach(([latent, , contribution]) => values.set(latent, contribution));
      worse.parts.forEach(([latent, , contribution]) => values.set(latent, (values.get(latent) || 0) - contribution));
      const ordered = [...values].filter(([, value]) => value !== 0).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]) || one[0] - other[0]);
      const sides = (latent) => [better, worse].map((one) => (one.parts.find((part) => part[0] === latent) || [0, 0, 0])[2]);
      const bars = ordered.slice(0, most).map(([latent, value]) => ({ label: this.name(latent), detail: sides(latent).map((side) => number(side)).join(" against "), value }));
      const rest = sum([...ordered.slice(most).map((pair) => pair[1]), better.others[1], -worse.others[1]]);
      const count = Math.max(0, ordered.length - most) + Math.max(better.others[0], worse.others[0]);
      const label = `${better.side} ${better.place + 1} minus ${worse.side} ${worse.place + 1}`;
      return element("div", { class: "difference" }, element("h4", {}, `The difference, latent by latent: ${label}`), this.bars(bars, { others: rest, count, total: better.reward - worse.reward, of: label, constant: 0 }));
    }

    bars(bars, { others, count, total, of, constant = this.index.constant }) {
      const steps = [...bars];
      if (!this.index.exact || count || others !== 0) steps.push({ label: this.index.exact ? `${whole(count)} others` : "all others", detail: "", value: others, plain: true });
      if (constant) steps.push({ label: "the head without latents", detail: "", value: constant, plain: true });
      let [at, low, high] = [0, Math.min(0, total), Math.max(0, total)];
      for (const step of steps) {
        step.from = at;
        at += step.value;
        [low, high] = [Math.min(low, at), Math.max(high, at)];
      }
      const made = sum(steps.map((step) => step.value));
      const width = high - low || 1;
      const bar = (from, to, kind) => {
        const [left, right] = [Math.min(from, to), Math.max(from, to)];
        const zero = element("i", { class: "zero", style: { left: `${(100 * (0 - low)) / width}%` } });
        return element("td", { class: "bar", "aria-hidden": "true" }, element("div", {}, zero, element("i", { class: kind, style: { left: `${(100 * (left - low)) / width}%`, width: `${(100 * (right - left)) / width}%` } })));
      };
      const line = (label, detail, value, cell, name) => element("tr", { class: name }, element("th", { scope: "row" }, label, detail ? [" ", element("small", {}, detail)] : null), element("td", {}, number(value)), cell);
      const rows = steps.map((step) => line(step.label, step.detail, step.value, bar(step.from, step.from + step.value, `${step.value < 0 ? "minus" : "plus"}${step.plain ? " plain" : ""}`), null));
      const end = line(of, "", total, bar(0, total, "total"), "total");
      const body = element("table", { class: "waterfall", "data-sum": made, "data-total": total }, element("tbody", {}, rows.slice(0, STEP), end));
      if (rows.length > STEP) {
        const more = element("button", { type: "button", onclick: () => (end.before(...rows.slice(STEP)), more.remove()) }, `show ${whole(rows.length - STEP)} more`);
        body.append(element("caption", {}, more));
      }
      const gap = Math.abs(made - total);
      return [element("div", { class: "scroll", tabindex: 0 }, body), element("p", { class: "quiet" }, `The bars come to ${number(made, 7)}, the stored value is ${number(total, 7)}${gap ? `; ${gap.toExponential(1)} apart, which is rounding in float32` : ""}.`)];
    }
  }

  function sum(values) {
    // With a running correction: many small parts must not lose digits.
    let [total, lost] = [0, 0];
    for (const value of values) {
      const next = total + value;
      lost += Math.abs(total) >= Math.abs(value) ? total - next + value : value - next + total;
      total = next;
    }
    return total + lost;
  }

  async function start(root) {
    const status = root.querySelector(".status");
    try {
      const data = document.getElementById(`${root.id}-data`);
      const explorer = new Explorer(root, data ? await embedded(data.textContent) : await inFolder());
      window.addEventListener("hashchange", () => explorer.show(true).catch((error) => told(root, error)));
      await explorer.show(location.hash.startsWith(`#${root.id}/`));
    } catch (error) {
      told(status || root, error);
    }
  }

  function told(place, error) {
    place.textContent = `This part of the page cannot be shown: ${error.message}. It needs a browser of 2023 or later (DecompressionStream).`;
  }

  document.querySelectorAll(".explorer").forEach(start);
})();
