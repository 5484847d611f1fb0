// node draw.mjs people OPTIONS.json OUT.json   one SVG text per entry of the options list
// node draw.mjs raster SVGS.json OUT_DIR WIDTH  one PNG per entry of {name: svg}
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [mode, source, target, width] = process.argv.slice(2);
const input = JSON.parse(readFileSync(source, "utf8"));

if (mode === "people") {
  const { createAvatar } = await import("@dicebear/core");
  const style = await import("@dicebear/avataaars");
  const people = input.map((options) => createAvatar(style, options).toString());
  writeFileSync(target, JSON.stringify(people));
} else if (mode === "raster") {
  const { Resvg } = await import("@resvg/resvg-js");
  for (const [name, svg] of Object.entries(input)) {
    const image = new Resvg(svg, { fitTo: { mode: "width", value: Number(width) } }).render();
    writeFileSync(join(target, `${name}.png`), image.asPng());
  }
} else {
  console.error(`unknown mode ${mode}: use people or raster`);
  process.exit(2);
}
