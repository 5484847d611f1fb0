// node draw.mjs OUT_DIR COUNT   COUNT people of each style as PNG, 512 pixels wide
import { createAvatar } from "@dicebear/core";
import { Resvg } from "@resvg/resvg-js";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const STYLES = ["personas", "open-peeps", "notionists", "lorelei", "micah", "avataaars"];
const GROUNDS = ["cfe3f5", "f6dcc9", "d8ecd5", "e9e4da", "a9c4e4", "c9b8dd", "6f8fae", "ffffff"];

const [folder, count] = process.argv.slice(2);
for (const name of STYLES) {
  const style = await import(`@dicebear/${name}`);
  for (let number = 0; number < Number(count); number++) {
    const backgroundColor = [GROUNDS[number % GROUNDS.length]];
    const svg = createAvatar(style, { seed: `${name}-${number}`, backgroundColor, size: 512 }).toString();
    const picture = new Resvg(svg, { fitTo: { mode: "width", value: 512 } }).render().asPng();
    writeFileSync(join(folder, `${name}-${String(number).padStart(3, "0")}.png`), picture);
  }
}
