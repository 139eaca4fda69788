"""The page's style sheet: light only, since the figures are; system fonts, so that nothing is loaded."""

CSS = """
:root { --ink: #1f2933; --faint: #52606d; --line: #d9dee3; --paper: #ffffff; --wash: #f4f6f8;
  --better: #0072b2; --worse: #b34700; --tie: #6b5b00; }
* { box-sizing: border-box; }
html { color-scheme: light; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--wash); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p, ul { margin: 0 0 .75rem; }
header p, .note, figcaption, footer { color: var(--faint); font-size: .9rem; }
header p { margin: 0; }
section > :last-child, section > :last-child > :last-child { margin-bottom: 0; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1.25rem 1.5rem; margin: 1.25rem 0; }
.found { list-style: none; padding: 0; margin: 0; }
.found > li { padding: .9rem 0; border-top: 1px solid var(--line); }
.found > li:first-child { border-top: 0; padding-top: 0; }
.found > li:last-child { padding-bottom: 0; }
.found p { margin: 0 0 .25rem; padding-left: 1.7rem; position: relative; text-wrap: pretty; }
.found p.main { font-size: 1.1rem; font-weight: 650; line-height: 1.4; margin-bottom: .4rem; }
.found p > span { position: absolute; left: 0; font-weight: 700; }
.better > span { color: var(--better); }
.worse > span { color: var(--worse); }
.tie > span { color: var(--tie); }
figure { margin: 0 0 1rem; }
figure > div { overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto; }
.wide { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
table.narrow { width: auto; }
.narrow th, .narrow td { padding-right: 2.5rem; }
caption { text-align: left; font-weight: 650; padding: .25rem 0; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom;
  border-bottom: 2px solid var(--line); }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
strong { font-weight: 700; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
details:first-of-type { border-top: 0; }
summary { cursor: pointer; font-weight: 600; }
details > :not(summary) { margin-top: .75rem; }
pre { background: var(--wash); padding: .75rem; overflow-x: auto; font-size: .8rem;
  border-radius: .25rem; margin: 0; }
code { font-size: .85em; overflow-wrap: anywhere; }
a { color: #005a92; }
.headline { font-size: 1.3rem; font-weight: 650; line-height: 1.35; text-wrap: pretty; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.tile { flex: 1 1 8.5rem; display: flex; flex-direction: column-reverse; justify-content: flex-end;
  background: var(--wash); border-radius: .35rem; padding: .6rem .8rem; }
.tile dt { color: var(--faint); font-size: .85rem; line-height: 1.3; }
.tile dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: 1.1rem; border-radius: .25rem; overflow: hidden; margin: 0 0 .6rem; }
.sure { background: #0072b2; }
.likely { background: #56b4e9; }
.not-sure { background: #b8c0c8; }
.keys { list-style: none; padding: 0; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .5rem; }
.empty { color: var(--faint); font-style: italic; }
.bare { list-style: none; padding: 0; margin: 0; min-width: 13rem; }
.bad, .warning { color: var(--worse); }
li { overflow-wrap: anywhere; }
footer { padding-bottom: 2.5rem; }
@media (min-width: 40.01rem) { .narrow caption { white-space: nowrap; } }
@media (max-width: 40rem) { section { padding: 1rem; } h1 { font-size: 1.5rem; } .tile { flex-basis: 40%; }
  .number { white-space: normal; }
  .narrow th, .narrow td { padding-right: .75rem; }
  .wide table:not(.narrow) td:not(.number) { min-width: 8rem; } }
@media print {
  @page { size: A4; margin: 14mm; }
  body { background: none; font-size: 10pt; }
  main, header, footer { max-width: none; padding: 0; }
  section { border: 0; padding: 0; }
  h2, h3, summary, caption { break-after: avoid; }
  figure, tr, li, .tiles, .bar { break-inside: avoid; }
  figure > div, .wide, pre { overflow: visible; }
  figure svg { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  th, td { overflow-wrap: break-word; padding-right: .5rem; }
  thead { break-inside: avoid; break-after: avoid; }
  footer { break-before: avoid; padding-bottom: 0; }
  .number { white-space: normal; }
  details::details-content { content-visibility: visible; height: auto; }
  .bar, .key, .tile { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
