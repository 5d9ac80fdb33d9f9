// The built book in headless Chromium, from its files: node check.mjs [FOLDER].  A line for each fault; exit status 1 if any.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const VIEWS = [[1280, "light"], [390, "dark"], [390, "light"], [1280, "dark"]]; // axe-core reads the first two
const LIMIT = 2_000_000; // bytes of a page
const here = path.dirname(fileURLToPath(import.meta.url));
const book = path.resolve(process.argv[2] ?? path.join(here, "../../_build/html"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const programs = [process.env.CHROMIUM, "/usr/bin/chromium-headless-shell", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const program = programs.find((file) => file && existsSync(file));
const stop = (line) => { console.error(`browser: ${line}`); process.exit(1); };
if (!program) stop("no Chromium; install Debian's package chromium, or give its path in CHROMIUM");
if (!existsSync(book)) stop(`no book in ${book}; make book builds it`);

// What runs in the page gives lists of faults.
const sideways = () => {
  const boxes = "table, .dt-container, .pst-scrollable-table-container, pre, mjx-container, .bd-sidebar-primary, dialog";
  const wide = [...document.querySelectorAll("body *")].filter((e) => {
    const { right, width, height } = e.getBoundingClientRect();
    return right > innerWidth + 1 && width * height > 1 && !e.parentElement.closest(boxes) && e.checkVisibility({ visibilityProperty: true });
  });
  const says = (e) => `<${e.tagName.toLowerCase()}${e.id && "#" + e.id}${e.classList.length ? "." + [...e.classList].join(".") : ""}>`;
  const page = document.documentElement.scrollWidth > innerWidth + 1 ? [`the page scrolls sideways (${document.documentElement.scrollWidth} px)`] : [];
  return [...page, ...wide.slice(0, 3).map((e) => `${says(e)} ends at ${Math.round(e.getBoundingClientRect().right)} px`)];
};
const foreign = () => [...document.scripts].flatMap((script) => (script.src || script.textContent).match(/https?:\/\/[^\s"'`]*/g) ?? [])
  .filter((url) => !url.includes("www.w3.org")).map((url) => `a script names ${url}`);
const serious = async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, nodes }) => `axe-core: ${id} at ${nodes[0].target.join(" ")}${nodes.length > 1 ? ` and ${nodes.length - 1} more` : ""}`);

/** Rows of a CSV text. */
function parsed(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === "\n") rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}

/** A table as a reader uses it: all rows shown, their texts in the CSV, sorted by the keyboard, filtered by a word. */
async function table(box) {
  const found = [], all = box.locator(".dt-length select"), search = box.locator(".dt-search input");
  const rows = async () => (await box.locator(".dt-container tbody tr").evaluateAll((trs) => trs.map((tr) => [...tr.cells].map((td) => td.textContent))));
  if (await all.count()) await all.selectOption({ index: (await all.locator("option").count()) - 1 });
  const shown = await rows();
  const link = box.locator("xpath=following-sibling::*[contains(@class, 'nflib-csv')][1]//a");
  const csv = parsed(Buffer.from((await link.getAttribute("href")).split("base64,")[1], "base64").toString()).slice(1);
  if (csv.length !== shown.length) found.push(`its CSV has ${csv.length} rows, it has ${shown.length}`);
  const lost = shown.findIndex((row, i) => csv[i] && !row.every((text) => !/^[A-Za-z]\w*$/.test(text) || ["yes", "no"].includes(text) || csv[i].includes(text)));
  if (lost >= 0 && csv.length === shown.length) found.push(`row ${lost + 1} is not that of its CSV`);

  const number = (text) => (text === "-" ? -Infinity : /^[-−]?[\d.,]+$/.test(text) ? Number(text.replace("−", "-").replaceAll(",", "")) : NaN);
  const inOrder = (values) => values.every((v, i) => !i || (values.some((w) => Number.isNaN(number(w))) ? values[i - 1].toLowerCase() <= v.toLowerCase() : number(values[i - 1]) <= number(v)));
  const column = shown[0].findIndex((_, c) => { const values = shown.map((row) => row[c]); return !inOrder(values) && !inOrder(values.toReversed()); });
  for (const down of column < 0 ? [] : [false, true]) {
    await box.locator("thead").first().locator("th").nth(column).locator("[role=button], .dt-column-order").first().press("Enter");
    const values = async () => { const now = (await rows()).map((row) => row[column]); return down ? now.reverse() : now; };
    for (let k = 0; k < 20 && !inOrder(await values()); k++) await box.page().waitForTimeout(100); // it sorts after the key's event
    if (!inOrder(await values())) found.push(`column ${column + 1} does not sort ${down ? "down" : "up"}`);
  }
  if (await search.count()) {
    const words = shown.flat().flatMap((text) => text.match(/^\w+$/g) ?? []).map((word) => word.toLowerCase());
    const hits = (word) => shown.filter((row) => row.some((text) => text.toLowerCase().includes(word))).length;
    const word = words.find((some) => hits(some) < shown.length);
    if (word) {
      await search.fill(word);
      let left = await rows();
      for (let k = 0; k < 20 && left.length === shown.length; k++) left = (await box.page().waitForTimeout(100), await rows());
      if (left.length !== hits(word)) found.push(`filtered by "${word}" it has ${left.length} rows, not ${hits(word)}`);
      await search.fill("");
    }
  }
  return found;
}

/** The page to play with: the voltage moves by the keyboard, a chip is drawn again, and what it says was measured is in its table. */
async function explainer(root) {
  const found = [], counts = [], of = (name) => root.locator(`[data-of="${name}"]`), rest = () => root.page().waitForTimeout(300);
  const lines = await root.page().locator("table", { hasText: "BER (%)" }).last().evaluate((e) => [...e.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim())));
  const table = lines.slice(1).map((row) => Object.fromEntries(row.map((cell, k) => [lines[0][k], cell])));
  for (const keys of [["Home"], new Array(60).fill("ArrowRight"), ["End"]]) {
    for (const key of keys) await root.locator("#explainer-voltage").press(key);
    await rest();
    counts.push(Number((await of("numbers").locator("dd").first().textContent()).split(" of ")[0].replaceAll(",", "")));
    const said = [...(await of("records").textContent()).matchAll(/Measured at (\S+) % bit errors \((.+?), \d+ chips[^)]*\): (.*?)\.(?=Measured|$)/g)];
    if (!said.length) found.push("it says nothing of what was measured");
    for (const [, rate, model, parts] of said)
      for (const part of parts.split("; ")) {
        const [, system, mean, worst] = part.match(/^(.*) (\S+) % on average, (\S+) % on the worst chip$/) ?? [];
        const fits = (row) => row["error model"] === model && row["BER (%)"] === rate && row[system] === mean && row[`${system}, worst chip`] === worst;
        if (!table.some(fits)) found.push(`no row of its table has "${model} at ${rate} %: ${part}"`);
      }
  }
  if (!(counts[0] < counts[1] && counts[1] < counts[2])) found.push(`flipped bits do not grow as the voltage falls: ${counts}`);
  const cells = await of("bits").textContent();
  await of("other").click();
  await rest();
  if ((await of("bits").textContent()) === cells) found.push("another chip has the same bits");
  return found;
}
const PARTS = [[".nflib-table", table], ["#explainer", explainer]]; // what a page may have, and how it is used

const files = readdirSync(book, { recursive: true }).filter((file) => file.endsWith(".html") && !file.startsWith("_"));
const pages = files.filter((file) => !readFileSync(path.join(book, file), "utf8").includes('http-equiv="Refresh"')).sort();
let count = 0;
const fault = (page, where, text) => (count++, console.log(`${page}: ${where}: ${text.replaceAll("\n", " ").slice(0, 300)}`));

const browser = await chromium.launch({ executablePath: program, args: ["--allow-file-access-from-files", "--disable-gpu"] });
for (const file of pages) {
  const size = statSync(path.join(book, file)).size;
  if (size > LIMIT) fault(file, "size", `${(size / 1e6).toFixed(1)} MB, over ${LIMIT / 1e6}`);
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000); // a busy machine is no fault
  let where = "";
  const note = (text) => fault(file, where, text);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && note(`console: ${message.text()}`));
  page.on("pageerror", (error) => note(`error: ${error.message}`));
  page.on("requestfailed", (request) => note(`failed: ${request.url().slice(0, 120)} (${request.failure().errorText})`));
  page.on("request", (request) => /^(https?|wss?):/.test(request.url()) && note(`asks for ${request.url()}`));
  for (const [k, [width, colorScheme]] of VIEWS.entries()) {
    where = `${width} px, ${colorScheme}`;
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme });
    if (k < 2) await page.goto(pathToFileURL(path.join(book, file)).href); // the other two need no fresh page
    if (k < 2) await page.waitForFunction(() => [...document.querySelectorAll(".nflib-table")].every((box) => box.querySelector("table.dataTable tbody td")), null).catch(() => note("a table does not come"));
    await page.waitForFunction((mode) => document.documentElement.dataset.theme === mode, colorScheme, { timeout: 30_000 }).catch(() => note("the theme does not follow the reader's"));
    for (const text of await page.evaluate(sideways)) note(text);
    if (k < 2) {
      await page.evaluate(axe);
      for (const text of await page.evaluate(serious)) note(text);
    }
    if (k === 0) {
      for (const text of await page.evaluate(foreign)) note(text);
      for (const [selector, use] of PARTS)
        for (const [i, box] of (await page.locator(selector).all()).entries())
          for (const text of await use(box).catch((error) => [error.message])) note(`${selector} ${i + 1}: ${text}`);
    }
  }
  await page.close();
}
await browser.close();
if (!pages.length) stop(`no page in ${book}`);
console.log(`browser: ${pages.length} pages at 1280 and 390 pixels, light and dark: ${count || "no"} fault${count === 1 ? "" : "s"}`);
process.exit(count ? 1 : 0);
