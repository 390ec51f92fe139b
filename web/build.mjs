// Builds the pages into dist/, which is committed, so that building the Rust needs no Node. With --check it only
// says whether dist/ is what the sources make.
import { readFile, writeFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const bundle = async (entry, name) => {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    charset: "utf8",
    write: false,
    legalComments: "none",
  });
  return [name, outputFiles[0].text];
};

const files = [
  ["index.html", await readFile("src/index.html", "utf8")],
  ["favicon.svg", await readFile("src/favicon.svg", "utf8")],
  ["console.html", await readFile("src/console.html", "utf8")],
  await bundle("src/console.ts", "console.js"),
  await bundle("src/console.css", "console.css"),
  await bundle("src/main.ts", "room.js"),
  await bundle("src/style.css", "room.css"),
];
const stale = [];
for (const [name, text] of files) {
  const built = await readFile(`dist/${name}`, "utf8").catch(() => "");
  if (built !== text) stale.push(name);
}
if (process.argv.includes("--check")) {
  if (stale.length > 0) {
    console.error(
      `web/dist is stale (${stale.join(", ")}): run \`npm run build\` in web/ and commit what it makes`,
    );
    process.exit(1);
  }
} else {
  await mkdir("dist", { recursive: true });
  for (const [name, text] of files) await writeFile(`dist/${name}`, text);
}
