"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const source = byId("data").textContent;
  const run = JSON.parse(source);
  const advice = JSON.parse(byId("advice").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const STATUS = { folded: "folded", merged: "merged", kept: "kept", changed: "weights changed", gone: "gone", new: "new", same: "unchanged" };

  /* Text from a model: control, bidirectional and invisible characters become U+FFFD, as on the terminal. */
  const clean = (text, limit = 400) => {
    const plain = String(text).replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "\uFFFD");
    return plain.length > limit ? plain.slice(0, limit - 1) + "…" : plain;
  };
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") element.className = value;
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes = {}, text = null) => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  };

  theme();
  download();
  sitesTable();
  if (run.picture) graph();

  function theme() {
    const button = byId("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
    const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      name();
    });
    system.addEventListener("change", name);
    name();
  }

  function download() {
    const button = byId("download");
    button.hidden = false;
    button.addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([JSON.stringify(run, null, 1), "\n"], { type: "application/json" }));
      const link = make("a", { href: url, download: "run.json" });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    });
  }

  function sitesTable() {
    const table = byId("site-table");
    if (!table) return;
    const form = byId("filters"), search = byId("search"), shown = byId("shown");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const status = byId("by-status").value, reason = byId("by-reason") ? byId("by-reason").value : "";
      let count = 0;
      rows.forEach((row, index) => {
        const there = words.every((word) => texts[index].includes(word)) && (!status || row.dataset.status === status) && (!reason || row.dataset.reason === reason);
        row.hidden = !there;
        count += there;
      });
      shown.textContent = count === rows.length ? `${count} shown` : `${count} of ${rows.length} shown`;
    };
    form.hidden = false;
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();

    const key = (row, column) => {
      const cell = row.cells[column];
      const text = cell.dataset.sort ?? cell.textContent.trim();
      const number = text === "" ? NaN : Number(text);
      return Number.isNaN(number) ? text : number;
    };
    const compare = (a, b) => {
      if (typeof a === "number" && typeof b === "number") return a - b;
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return a.localeCompare(b, "en", { numeric: true });
    };
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = rows.map((row, index) => [key(row, column), index, row]);
        keyed.sort((a, b) => (up ? 1 : -1) * compare(a[0], b[0]) || a[1] - b[1]);
        table.tBodies[0].append(...keyed.map((entry) => entry[2]));
      });
    });
  }

  function graph() {
    const FEW = 34; /* boxes that are shown before anybody opens a block */
    const MANY = 120; /* boxes from which blocks are drawn around what was laid out without them */
    const picture = run.picture;
    const sites = new Map([...(run.affines || []), ...run.sites].map((site) => [site.name, site]));
    const weights = new Map(picture.weights.map((weight) => [weight.name, weight]));
    const open = new Set();
    const sides = {};
    let zoom = 1, chosen = null;

    byId("graph-app").hidden = false;
    for (const side of ["before", "after"]) {
      if (picture[side]) sides[side] = makeSide(side, picture[side]);
    }
    openFew();
    render();

    byId("open-all").addEventListener("click", () => { everyBlock((block) => open.add(block.key)); render(); look(); });
    byId("close-all").addEventListener("click", () => { open.clear(); render(); look(); });
    byId("zoom-in").addEventListener("click", () => scale(zoom * 1.25));
    byId("zoom-out").addEventListener("click", () => scale(zoom / 1.25));
    const names = run.sites.length ? run.sites.map((site) => site.name) : picture.before.filter((node) => node.op === "BatchNormalization").map((node) => node.name);
    for (const link of document.querySelectorAll("a.to-graph")) {
      link.addEventListener("click", (event) => {
        const name = names[Number(link.dataset.site)];
        if (!sides.before.index.has(name)) return;
        event.preventDefault();
        for (const row of document.querySelectorAll("tr.at")) row.classList.remove("at");
        link.closest("tr").classList.add("at");
        choose("before", sides.before.index.get(name), true);
        byId("graph").scrollIntoView({ block: "start" });
      });
    }

    /* ---- blocks: the tree of module paths; a block that holds one thing only is that thing ---- */

    function makeSide(side, nodes) {
      const index = new Map(nodes.map((node, at) => [node.name, at]));
      const readers = nodes.map(() => []);
      nodes.forEach((node, at) => (node.reads || []).forEach((from) => readers[from] && readers[from].push(at)));
      const root = { key: "", label: "", children: new Map(), items: [] };
      nodes.forEach((node, at) => {
        let block = root;
        for (const part of node.path || []) {
          if (!block.children.has(part)) {
            const child = { key: block.key + "\u0000" + part, label: part, children: new Map(), items: [] };
            block.children.set(part, child);
            block.items.push(child);
          }
          block = block.children.get(part);
        }
        block.items.push({ op: at });
      });
      const place = new Map(); /* operator -> the blocks around it, outermost first */
      const tidy = (block, around) => {
        block.items = block.items.map((item) => {
          while (item.items && item.items.length === 1) {
            const only = item.items[0];
            item = only.items ? { ...only, label: joined(item.label, only.label) } : only;
          }
          return item;
        });
        for (const item of block.items) {
          if (item.items) tidy(item, [...around, item]);
          else place.set(item.op, around);
        }
      };
      tidy(root, []);
      return { side, nodes, index, readers, root, place, canvas: byId(`graph-${side}`) };
    }

    function joined(outer, inner) {
      return inner.startsWith(outer) ? inner : `${outer}.${inner}`;
    }

    function everyBlock(visit) {
      const walk = (block) => block.items.forEach((item) => { if (item.items) { visit(item); walk(item); } });
      Object.values(sides).forEach((side) => walk(side.root));
    }

    function openFew() {
      let level = [sides.before.root], count = sides.before.root.items.length;
      while (level.length) {
        const next = [];
        for (const block of level.flatMap((outer) => outer.items.filter((item) => item.items))) {
          if (count + block.items.length - 1 > FEW) continue;
          count += block.items.length - 1;
          open.add(block.key);
          next.push(block);
        }
        level = next;
      }
    }

    function holds(block) {
      return block.items.flatMap((item) => (item.items ? holds(item) : [item.op]));
    }

    /* ---- layout and drawing ---- */

    function render() {
      Object.values(sides).forEach(drawSide);
      resize();
      mark();
    }

    function visible(side) {
      const boxes = [], clusters = [], owner = new Map();
      const walk = (block, parent) => {
        for (const item of block.items) {
          if (!item.items) {
            boxes.push({ id: `o${item.op}`, op: item.op, parent });
            owner.set(item.op, `o${item.op}`);
          } else if (open.has(item.key)) {
            clusters.push({ id: `c${clusters.length}`, block: item, parent });
            walk(item, clusters[clusters.length - 1].id);
          } else {
            const id = `b${boxes.length}`, ops = holds(item);
            boxes.push({ id, block: item, ops, parent });
            ops.forEach((op) => owner.set(op, id));
          }
        }
      };
      walk(side.root, null);
      return { boxes, clusters, owner };
    }

    function texts(side, box) {
      if (box.block) {
        const counts = {};
        for (const op of box.ops) {
          const status = side.nodes[op].status;
          if (status !== "same") counts[status] = (counts[status] || 0) + 1;
        }
        return { title: clean(box.block.label), sub: box.ops.length === 1 ? "1 operator" : `${box.ops.length} operators`, counts };
      }
      const node = side.nodes[box.op];
      if (node.op === "Input" || node.op === "Output") return { title: clean(node.name), sub: clean(node.shape || "") };
      return { title: clean(node.op), sub: clean(node.name) };
    }

    function tail(text, most) { return text.length > most ? "…" + text.slice(text.length - most + 1) : text; }
    function head(text, most) { return text.length > most ? text.slice(0, most - 1) + "…" : text; }

    function drawSide(side) {
      const { boxes, clusters, owner } = visible(side);
      const compound = clusters.length > 0 && boxes.length <= MANY; /* dagre's nested layout takes its time */
      const g = new dagre.graphlib.Graph({ compound });
      g.setGraph({ rankdir: "TB", nodesep: 16, ranksep: compound ? 36 : 28, edgesep: 10, marginx: 14, marginy: 18 });
      g.setDefaultEdgeLabel(() => ({}));
      if (compound) clusters.forEach((cluster) => g.setNode(cluster.id, {}));
      for (const box of boxes) {
        box.text = texts(side, box);
        const marks = Object.keys(box.text.counts || {}).length;
        const lines = Math.max(Math.min(box.text.title.length, 26) * 7.4, Math.min(box.text.sub.length, 26) * 5.9, marks * 34);
        g.setNode(box.id, { width: Math.round(Math.max(lines + 36, 76)), height: marks ? 54 : 38 });
      }
      if (compound) for (const item of [...clusters, ...boxes]) if (item.parent) g.setParent(item.id, item.parent);
      side.nodes.forEach((node, at) => (node.reads || []).forEach((from) => {
        const a = owner.get(from), b = owner.get(at);
        if (a && b && a !== b) g.setEdge(a, b);
      }));
      dagre.layout(g);

      const { width, height } = g.graph();
      const svg = draw("svg", { viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`, role: "group", "aria-label": `Graph ${side.side}` });
      const tip = `tip-${side.side}`;
      const defs = draw("defs"), marker = draw("marker", { id: tip, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto" });
      marker.append(draw("path", { d: "M0 .8 7 4 0 7.2Z", class: "g-tip" }));
      defs.append(marker);
      svg.append(defs);
      side.boxes = new Map();
      side.edges = [];
      for (const cluster of clusters) {
        const at = compound ? g.node(cluster.id) : around(cluster, clusters, boxes, g);
        if (at) svg.append(drawCluster(side, cluster, at));
      }
      for (const edge of g.edges()) {
        const path = draw("path", { class: "g-edge", d: curve(g.edge(edge).points), "marker-end": `url(#${tip})` });
        side.edges.push({ from: edge.v, to: edge.w, path });
        svg.append(path);
      }
      boxes.sort((a, b) => g.node(a.id).y - g.node(b.id).y || g.node(a.id).x - g.node(b.id).x);
      for (const box of boxes) svg.append(drawBox(side, box, g.node(box.id)));
      side.owner = owner;
      side.svg = svg;
      side.size = [width, height];
      const first = boxes[0];
      if (first) side.boxes.get(first.id).element.setAttribute("tabindex", "0");
      side.canvas.replaceChildren(svg);
    }

    /* The frame of a block around its boxes; none where a box of another block stands among them. */
    function around(cluster, clusters, boxes, g) {
      const depth = new Map([[cluster.id, 0]]);
      for (const other of clusters) if (depth.has(other.parent)) depth.set(other.id, depth.get(other.parent) + 1);
      const inside = Math.max(...depth.values());
      const mine = boxes.filter((box) => depth.has(box.parent)).map((box) => g.node(box.id));
      if (!mine.length) return null;
      const pad = 7 + 5 * inside;
      const left = Math.min(...mine.map((at) => at.x - at.width / 2)) - pad, right = Math.max(...mine.map((at) => at.x + at.width / 2)) + pad;
      const top = Math.min(...mine.map((at) => at.y - at.height / 2)) - 3 - 14 * inside, bottom = Math.max(...mine.map((at) => at.y + at.height / 2)) + 5;
      const clash = boxes.some((box) => {
        const at = g.node(box.id);
        return !depth.has(box.parent) && at.x + at.width / 2 > left && at.x - at.width / 2 < right && at.y > top && at.y < bottom;
      });
      return clash ? null : { x: (left + right) / 2, y: (top + bottom) / 2, width: right - left, height: bottom - top };
    }

    function drawCluster(side, cluster, at) {
      const name = clean(cluster.block.label);
      const left = at.x - at.width / 2, top = at.y - at.height / 2 - 15; /* room for its name */
      const group = draw("g", { class: "g-cluster", role: "button", tabindex: "-1", "aria-label": `Close block ${name}` });
      group.append(draw("rect", { x: left, y: top, width: at.width, height: at.height + 15, rx: 8 }));
      group.append(draw("text", { x: left + 8, y: top + 14 }, head(name, Math.max(6, Math.floor(at.width / 6.6) - 3)) + " −"));
      group.addEventListener("click", () => toggle(side, cluster.block));
      return group;
    }

    function drawBox(side, box, at) {
      const node = box.block ? null : side.nodes[box.op];
      const io = node && (node.op === "Input" || node.op === "Output");
      const status = node ? node.status : "";
      const said = node ? (io ? box.text.title : `${box.text.title} ${box.text.sub}, ${STATUS[status] || status}`) : `Block ${box.text.title}, ${box.text.sub}, closed`;
      const group = draw("g", { class: `g-node ${box.block ? "block" : io ? "io" : status}`, role: "button", tabindex: "-1", "aria-label": said, transform: `translate(${at.x - at.width / 2} ${at.y - at.height / 2})` });
      if (box.block) group.setAttribute("aria-expanded", "false");
      group.append(draw("title", {}, node ? clean(node.name) : box.text.title));
      group.append(draw("rect", { width: at.width, height: at.height, rx: box.block ? 8 : 5 }));
      const left = node && !io ? 24 : at.width / 2;
      const anchor = node && !io ? "start" : "middle";
      if (node && !io) group.append(shape(status, 8, 13));
      group.append(draw("text", { x: left, y: 16, class: "g-op", "text-anchor": anchor }, (io ? tail : head)(box.text.title, 26) + (box.block ? " +" : "")));
      group.append(draw("text", { x: left, y: 30, class: "g-sub", "text-anchor": anchor }, tail(box.text.sub, 28)));
      if (box.block) {
        const kinds = Object.entries(box.text.counts);
        let x = at.width / 2 - kinds.length * 17 + 4;
        for (const [kind, count] of kinds) {
          group.append(shape(kind, x, 37));
          group.append(draw("text", { x: x + 14, y: 46, class: "g-sub" }, String(count)));
          x += 34;
        }
      }
      group.addEventListener("click", () => act(side, box));
      group.addEventListener("keydown", (event) => key(event, side, box));
      side.boxes.set(box.id, { box, element: group, at });
      return group;
    }

    function shape(status, x, y) {
      const forms = {
        folded: () => draw("circle", { cx: 6, cy: 6, r: 5 }),
        merged: () => draw("path", { d: "M6 .5 11.5 6 6 11.5 .5 6Z" }),
        kept: () => draw("path", { d: "M1.5 1.5h9v9h-9Z" }),
        changed: () => draw("path", { d: "M6 1 11.5 10.5H.5Z" }),
        new: () => draw("path", { d: "M4.5 1h3v3.5H11v3H7.5V11h-3V7.5H1v-3h3.5Z" }),
        gone: () => draw("path", { class: "line", d: "M2 2 10 10M10 2 2 10" }),
      };
      const group = draw("g", { class: `g-mark ${status}`, transform: `translate(${x} ${y}) scale(.88)` });
      group.append((forms[status] || (() => draw("circle", { cx: 6, cy: 6, r: 2.5 })))());
      return group;
    }

    function curve(points) {
      if (points.length < 3) return `M${points.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L")}`;
      let path = `M${points[0].x.toFixed(1)} ${points[0].y.toFixed(1)}`;
      for (let i = 1; i < points.length - 1; i++) {
        const last = i === points.length - 2;
        const x = last ? points[i + 1].x : (points[i].x + points[i + 1].x) / 2;
        const y = last ? points[i + 1].y : (points[i].y + points[i + 1].y) / 2;
        path += `Q${points[i].x.toFixed(1)} ${points[i].y.toFixed(1)} ${x.toFixed(1)} ${y.toFixed(1)}`;
      }
      return path;
    }

    function resize() {
      const fits = Object.values(sides).map((side) => (side.canvas.clientWidth - 4) / side.size[0]);
      const fit = Math.min(1, Math.max(0.6, Math.min(...fits)));
      Object.values(sides).forEach((side) => sized(side, fit));
    }

    function sized(side, fit) {
      side.svg.setAttribute("width", Math.round(side.size[0] * fit * zoom));
      side.svg.setAttribute("height", Math.round(side.size[1] * fit * zoom));
    }

    function scale(to) {
      zoom = Math.min(3, Math.max(0.2, to));
      resize();
    }
    addEventListener("resize", resize);

    /* ---- choosing ---- */

    function act(side, box) {
      if (box.block) toggle(side, box.block);
      else choose(side.side, box.op, false);
    }

    function toggle(side, block) {
      const first = holds(block)[0];
      if (open.has(block.key)) open.delete(block.key);
      else open.add(block.key);
      render();
      const now = side.boxes.get(side.owner.get(first));
      if (now) { bring(side, now); focusOn(side, now); }
    }

    function reveal(side, at) {
      let hidden = false;
      for (const block of side.place.get(at) || []) {
        hidden = hidden || !open.has(block.key);
        open.add(block.key);
      }
      return hidden;
    }

    function twins(side, at) {
      const other = side === sides.before ? sides.after : sides.before;
      if (!other) return [];
      const node = side.nodes[at], names = [node.name, node.was].filter(Boolean);
      let found = other.nodes.flatMap((each, index) => (names.includes(each.name) || (each.was && each.was === node.name) ? [index] : []));
      const site = sites.get(node.name);
      if (!found.length && site && side === sides.before) found = site.into.filter((name) => other.index.has(name)).map((name) => other.index.get(name));
      return found;
    }

    function choose(name, at, show) {
      const side = sides[name];
      chosen = { side, at, twins: twins(side, at) };
      let hidden = reveal(side, at);
      const other = side === sides.before ? sides.after : sides.before;
      if (other) chosen.twins.forEach((twin) => { hidden = reveal(other, twin) || hidden; });
      if (hidden) render(); else mark();
      const box = side.boxes.get(side.owner.get(at));
      bring(side, box);
      if (show) focusOn(side, box); else rove(side, box);
      if (other && chosen.twins.length) bring(other, other.boxes.get(other.owner.get(chosen.twins[0])));
      detail();
    }

    function mark() {
      for (const side of Object.values(sides)) {
        side.boxes.forEach(({ element }) => { element.classList.remove("near", "twin", "chosen"); element.removeAttribute("aria-current"); });
        side.edges.forEach(({ path }) => path.classList.remove("near"));
        if (!chosen) continue;
        if (side === chosen.side) {
          const id = side.owner.get(chosen.at), { element } = side.boxes.get(id);
          element.classList.add("chosen");
          element.setAttribute("aria-current", "true");
          for (const edge of side.edges) {
            if (edge.from !== id && edge.to !== id) continue;
            edge.path.classList.add("near");
            side.boxes.get(edge.from === id ? edge.to : edge.from).element.classList.add("near");
          }
        } else {
          for (const twin of chosen.twins) side.boxes.get(side.owner.get(twin)).element.classList.add("twin");
        }
      }
    }

    /* Back to what was chosen, or to the first box. */
    function look() {
      for (const side of Object.values(sides)) {
        const at = chosen && (side === chosen.side ? chosen.at : chosen.twins[0]);
        const box = at === null || at === undefined ? side.boxes.values().next().value : side.boxes.get(side.owner.get(at));
        if (box) bring(side, box);
      }
    }

    function bring(side, { at }) {
      const k = Number(side.svg.getAttribute("width")) / side.size[0];
      side.canvas.scrollTop = at.y * k - side.canvas.clientHeight / 2;
      side.canvas.scrollLeft = at.x * k - side.canvas.clientWidth / 2;
    }

    function rove(side, { element }) {
      side.boxes.forEach((other) => other.element.setAttribute("tabindex", "-1"));
      element.setAttribute("tabindex", "0");
    }

    function focusOn(side, box) {
      rove(side, box);
      box.element.focus({ preventScroll: true });
    }

    function key(event, side, box) {
      const here = side.boxes.get(box.id);
      const near = (from, to) => side.edges.filter((edge) => edge[from] === box.id).map((edge) => side.boxes.get(edge[to])).sort((a, b) => Math.abs(a.at.x - here.at.x) - Math.abs(b.at.x - here.at.x));
      const beside = (sign) => [...side.boxes.values()].filter(({ at }) => sign * (at.x - here.at.x) > 1 && Math.abs(at.y - here.at.y) < 60).sort((a, b) => sign * (a.at.x - b.at.x));
      const next = {
        ArrowDown: () => near("from", "to"), ArrowUp: () => near("to", "from"),
        ArrowRight: () => beside(1), ArrowLeft: () => beside(-1),
        Home: () => [side.boxes.values().next().value], End: () => [[...side.boxes.values()].pop()],
      }[event.key];
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(side, box); }
      else if (event.key === "Escape" && side.place.get(box.op ?? box.ops[0]).length) {
        const around = side.place.get(box.op ?? box.ops[0]).filter((block) => open.has(block.key)).pop();
        if (around) toggle(side, around);
      } else if (next) {
        event.preventDefault();
        const to = next()[0];
        if (to) { focusOn(side, to); bring(side, to); }
      }
    }

    /* ---- the panel ---- */

    function number(value) {
      return value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString();
    }
    function range(ends) {
      if (!ends || ends.includes(null)) return "–";
      return number(ends[0]) === number(ends[1]) ? number(ends[0]) : `${number(ends[0])} … ${number(ends[1])}`;
    }

    function detail() {
      const { side, at } = chosen, node = side.nodes[at], panel = byId("detail");
      const site = sites.get(node.name), weight = weights.get(node.name) || weights.get(node.was);
      const parts = [make("h3", {}, clean(node.op), " ", make("span", { class: "sub" }, clean(node.name)))];
      const chip = make("span", { class: `chip ${node.status}` }, STATUS[node.status] || clean(node.status));
      const icon = draw("svg", { class: `mark ${node.status}`, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" });
      icon.append(...shape(node.status, 0, 0).childNodes);
      chip.prepend(icon);
      parts.push(make("p", {}, chip));
      if (site && site.reason) {
        parts.push(make("p", {}, make("b", {}, clean(site.reason.code)), ` ${clean(site.reason.text)}.`));
        if (advice[site.reason.code]) parts.push(make("p", { class: "hint" }, advice[site.reason.code]));
      }
      if (site && site.into.length) parts.push(heading("Weights that took it over"), links(sides.after || side, site.into.map((name) => (sides.after || side).index.get(name)), site.into));
      if (site && site.units) parts.push(heading("Units, over the channels"), unitsTable(site.units));
      if (weight) parts.push(...weightParts(weight));
      const facts = [["side", side.side], ["module", clean((node.path || []).join(" / ")) || "–"], ["result", clean(node.shape || "–")]];
      parts.push(heading("Place"), rowsTable(facts));
      const reads = node.reads || [];
      if (reads.length) parts.push(heading("Reads"), links(side, reads));
      if (side.readers[at].length) parts.push(heading("Read by"), links(side, side.readers[at]));
      panel.replaceChildren(...parts);
      byId("chosen").textContent = `Chosen on the side ${side.side}: ${clean(node.op)} ${clean(node.name)}, ${STATUS[node.status] || clean(node.status)}`;
      panel.scrollTop = 0;
    }

    function heading(text) { return make("h4", {}, text); }

    function links(side, indices, names = null) {
      const list = make("ul");
      indices.forEach((index, i) => {
        if (index === undefined) return list.append(make("li", {}, clean(names[i])));
        const node = side.nodes[index];
        list.append(make("li", {}, make("button", { type: "button", onclick: () => choose(side.side, index, false) }, clean(`${node.op} ${node.name}`))));
      });
      return list;
    }

    function rowsTable(rows) {
      const body = make("tbody");
      for (const [name, value] of rows) body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)));
      return make("table", {}, body);
    }

    function unitsTable(units) {
      return rowsTable([
        ["channels", String(units.channels)], ["multiplied by s", range(units.s)], ["added t", range(units.t)],
        ["input, S", range(units.scale_in)], ["input, T", range(units.shift_in)], ["output, S", range(units.scale_out)], ["output, T", range(units.shift_out)],
      ]);
    }

    function weightParts(weight) {
      const after = weight.after === "same" ? weight.before : weight.after;
      const rows = [];
      if (weight.before && after && weight.before.shape.join() !== after.shape.join()) rows.push(["shape", `${weight.before.shape.join("×")} → ${after.shape.join("×")}`]);
      else rows.push(["shape", (after || weight.before).shape.join("×")]);
      if (weight.moved !== null) rows.push(["moved by", weight.moved === 0 ? "nothing" : `${number(100 * weight.moved)} % of the largest`]);
      if (weight.factor && weight.moved) rows.push(["channels ×", range(weight.factor)]);
      rows.push(["bias", { same: "unchanged", changed: "changed", new: "new", gone: "gone", none: "none" }[weight.bias] || "–"]);
      const parts = [heading("Weights"), rowsTable(rows), heading("Largest |weight| by channel, before and after")];
      const top = Math.max(...[weight.before, after].flatMap((each) => (each ? each.profile : [])).map(Number)) || 1;
      const svg = draw("svg", { class: "profile", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `Largest weight of each output channel: before up to ${number(weight.before && weight.before.quantiles[4])}, after up to ${number(after && after.quantiles[4])}` });
      for (const [kind, each] of [["before", weight.before], ["after", after]]) {
        if (!each) continue;
        const wide = Math.max(each.profile.length - 1, 1);
        svg.append(draw("polyline", { class: kind, points: each.profile.map((value, i) => `${((100 * i) / wide).toFixed(1)},${(39 - (38 * Number(value)) / top).toFixed(1)}`).join(" ") }));
      }
      return [...parts, svg];
    }
  }
})();
