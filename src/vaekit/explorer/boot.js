// Turns the modules packed into this page into Blob URLs, dependencies first, and starts the last one, main.js.
// globalThis.vaekitModules holds each module's URL by name, for workers.
const urls = {};
globalThis.vaekitModules = urls;
for (const script of document.querySelectorAll("script[data-module]")) {
  const source = script.textContent.replace(/(\bfrom\s*|\bimport\s*)"\.\/([\w.-]+)"/g, (_, word, name) => `${word}"${urls[name]}"`);
  urls[script.dataset.module] = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
}
import(urls["main.js"]);
