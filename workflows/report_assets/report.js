// Galleries: one large 3D view for the chosen card, one small view that moves to the card under the pointer, and one
// unseen view that takes the pictures of all others. Browsers allow about 16 WebGL views a page; this needs three.
(() => {
  "use strict";
  const colours = {
    H: "#f2f2f2", C: "#747c86", N: "#3f63e8", O: "#e03030", F: "#3fbf5a", P: "#f08c1e", S: "#dcb81e", Cl: "#2fb04a",
    Br: "#a3471c", I: "#8a2fb4",
  };
  // elements outside organic chemistry have Jmol's colours
  const palette = { ...$3Dmol.elementColors.Jmol, ...colours };
  const styles = (kind) => {
    const color = { colorscheme: { prop: "elem", map: palette } };
    if (kind === "space") return { sphere: { ...color, scale: 0.9 } };
    if (kind === "stick") return { stick: { ...color, radius: 0.13 } };
    return { stick: { ...color, radius: 0.1 }, sphere: { ...color, scale: 0.21 } };
  };

  function makeView(element) {
    const view = $3Dmol.createViewer(element, { antialias: true, backgroundColor: "white", backgroundAlpha: 0, disableFog: true });
    if (!view) throw new Error("no WebGL");
    return view;
  }

  function atomsOf({ e, x, b }) {
    const atoms = (e ? e.split(" ") : []).map((elem, k) => ({
      elem, serial: k, index: k, x: x[3 * k], y: x[3 * k + 1], z: x[3 * k + 2], bonds: [], bondOrder: [],
    }));
    for (let k = 0; k < b.length; k += 3) {
      const [i, j, order] = b.slice(k, k + 3);
      atoms[i].bonds.push(j);
      atoms[i].bondOrder.push(order);
      atoms[j].bonds.push(i);
      atoms[j].bondOrder.push(order);
    }
    return atoms;
  }

  function show(view, structure, kind = "ball", labels = false) {
    view.removeAllModels();
    view.removeAllLabels();
    view.removeAllShapes();
    if (!structure) return view.render();
    const model = view.addModel();
    model.addAtoms(atomsOf(structure));
    if (structure.c) {
      const [a, b, c] = structure.c;
      const corner = (i, j, k) => ({ x: i * a[0] + j * b[0] + k * c[0], y: i * a[1] + j * b[1] + k * c[1], z: i * a[2] + j * b[2] + k * c[2] });
      for (const [p, q] of [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]]) {
        const ends = [p, q].map((n) => corner(n & 1, (n >> 1) & 1, (n >> 2) & 1));
        view.addLine({ start: ends[0], end: ends[1], color: "#7d8794" });
      }
    }
    view.setStyle({}, styles(kind));
    if (labels) {
      for (const atom of model.selectedAtoms({})) {
        view.addLabel(`${atom.elem}${atom.serial + 1}`, {
          position: atom, fontSize: 12, fontColor: "#111", backgroundColor: "#fff", backgroundOpacity: 0.75, inFront: true,
        });
      }
    }
    view.zoomTo();
    if (!structure.c) view.zoom(kind === "space" ? 1.1 : 1.22);
    view.render();
    return view;
  }

  class Galleries {
    constructor() {
      const box = document.createElement("div");
      box.style.cssText = "position:fixed;left:-2000px;top:0;width:240px;height:170px";
      document.body.append(box);
      this.camera = makeView(box);
      this.live = document.createElement("div");
      this.live.className = "live";
      this.owner = null;
    }

    picture(structure) {
      show(this.camera, structure);
      return this.camera.pngURI();
    }

    // the small view on a card; what it leaves behind is a picture of how it was turned
    visit(picture, structure) {
      if (this.owner === picture) return;
      this.leave();
      picture.append(this.live);
      if (!this.roamer) {
        this.roamer = makeView(this.live);
        this.live.addEventListener("wheel", (event) => event.stopPropagation(), { capture: true });
      }
      this.roamer.resize();
      show(this.roamer, structure);
      this.owner = picture;
    }

    leave() {
      if (!this.owner) return;
      const image = this.owner.querySelector("img");
      if (image) image.src = this.roamer.pngURI();
      this.live.remove();
      this.owner = null;
    }
  }

  function setUp(section, galleries) {
    const structures = JSON.parse(section.querySelector(".structures").textContent);
    const find = (selector) => section.querySelector(selector);
    const cards = [...section.querySelectorAll(".card")];
    const stage = find(".stage"), canvas = find(".view");
    let chosen = -1, solid = false;
    stage.hidden = false;
    const view = makeView(canvas);

    const draw = () => show(view, structures[chosen], find(".style").value, find(".labels").checked);
    const choose = (index, scroll = false) => {
      chosen = (index + cards.length) % cards.length;
      const card = cards[chosen];
      cards.forEach((other, k) => {
        other.classList.toggle("chosen", k === chosen);
        other.querySelector(".pick").setAttribute("aria-pressed", String(k === chosen));
      });
      const name = card.querySelector("code").textContent;
      find(".about h3").replaceChildren(card.querySelector("code").cloneNode(true));
      const parts = [".picture > svg", ".detail", ".badges", "dl"].map((s) => card.querySelector(s)).filter(Boolean);
      find(".about .chosen").replaceChildren(...parts.map((part) => part.cloneNode(true)));
      canvas.setAttribute("aria-label", structures[chosen] ? `3D view of ${name}; turn it with the arrow keys` : `${name}: no coordinates`);
      draw();
      if (scroll) stage.scrollIntoView({ block: "nearest" });
    };

    find(".previous").addEventListener("click", () => choose(chosen - 1));
    find(".next").addEventListener("click", () => choose(chosen + 1));
    find(".reset").addEventListener("click", draw);
    find(".style").addEventListener("change", draw);
    find(".labels").addEventListener("change", draw);
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [-15, "y"], ArrowRight: [15, "y"], ArrowUp: [-15, "x"], ArrowDown: [15, "x"] };
      const zooms = { "+": 1.2, "=": 1.2, "-": 1 / 1.2 };
      if (turns[event.key]) view.rotate(...turns[event.key]);
      else if (zooms[event.key]) view.zoom(zooms[event.key]);
      else return;
      event.preventDefault();
    });
    // the wheel scrolls the page until the view was clicked
    canvas.addEventListener("pointerdown", () => canvas.focus({ preventScroll: true }));
    canvas.addEventListener("wheel", (event) => document.activeElement !== canvas && event.stopPropagation(), { capture: true });

    const watch = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting || !solid) continue;
        watch.unobserve(target);
        const structure = structures[target.closest(".card").dataset.index];
        const image = document.createElement("img");
        image.alt = `3D picture of ${target.closest(".card").querySelector("code").textContent}`;
        image.src = galleries.picture(structure);
        target.append(image);
      }
    }, { rootMargin: "300px" });

    cards.forEach((card, index) => {
      const picture = card.querySelector(".picture");
      let from = null;
      card.querySelector(".pick").addEventListener("click", () => choose(index, true));
      picture.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; }, { capture: true });
      picture.addEventListener("click", (event) => {
        const moved = from && Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 4;
        if (!moved) choose(index, !solid);
      }, { capture: true });
      picture.addEventListener("pointerenter", () => solid && structures[index] && galleries.visit(picture, structures[index]));
      picture.addEventListener("pointerleave", (event) => event.buttons === 0 && galleries.leave());
    });

    const turn = (to) => {
      solid = to;
      galleries.leave();
      find(".flat").setAttribute("aria-pressed", String(!solid));
      find(".solid").setAttribute("aria-pressed", String(solid));
      cards.forEach((card, index) => {
        const picture = card.querySelector(".picture");
        if (!structures[index]) return;
        picture.classList.toggle("solid", solid);
        picture.querySelectorAll("img").forEach((image) => image.remove());
        if (solid) watch.observe(picture); else watch.unobserve(picture);
      });
    };
    find(".switch").hidden = false;
    find(".flat").addEventListener("click", () => turn(false));
    find(".solid").addEventListener("click", () => turn(true));
    choose(Math.max(0, structures.findIndex(Boolean)));
    window.addEventListener("resize", () => view.resize());
    if (location.hash === "#3d") turn(true);
  }

  let galleries = null;
  for (const section of document.querySelectorAll("section.gallery")) {
    if (!section.querySelector(".structures")) continue;
    try {
      galleries ??= new Galleries();
      setUp(section, galleries);
    } catch (error) {
      section.querySelectorAll(".stage, .switch").forEach((part) => { part.hidden = true; });
      const note = document.createElement("p");
      note.className = "empty";
      note.textContent = `This browser shows no 3D view (${error.message}); the drawings are all there is.`;
      section.querySelector(".cards").before(note);
    }
  }
})();
