"""The status page's style sheet: system fonts, light and dark by the reader's own choice; nothing is loaded."""

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --faint: #52606d; --line: #d9dee3; --paper: #ffffff;
  --wash: #f3f5f7; --bar: #0b6fa4; --track: #dde3e9; --good: #19683a; --bad: #a4262c; --mind: #7a5200; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --faint: #a7b4c0; --line: #36424d; --paper: #1b232b;
  --wash: #11171d; --bar: #5cb8e8; --track: #33404b; --good: #7fd39d; --bad: #ff9a96; --mind: #f0c268; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--wash); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 60rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.75rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
p { margin: 0 0 .6rem; }
section > :last-child, dl:last-child, td > :last-child { margin-bottom: 0; }
.faint, footer, caption { color: var(--faint); font-size: .9rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: 1.1rem 1.25rem;
  margin: 1rem 0; }
.state { display: inline-block; font-weight: 650; padding: .1rem .7rem; border: 1px solid currentColor;
  border-radius: 1rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .mind { color: var(--mind); }
.headline { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
.track { height: 1.1rem; background: var(--track); border-radius: .55rem; overflow: hidden; margin: .4rem 0 .5rem; }
.track > div { height: 100%; min-width: 0; background: var(--bar); border-radius: .55rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; margin: 1rem 0; }
.tiles > div { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: .85rem 1rem; }
.tiles dt { color: var(--faint); font-size: .9rem; }
.tiles dd { margin: 0; overflow-wrap: anywhere; }
.tiles dd:first-of-type { font-size: 1.5rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles dd + dd { color: var(--faint); font-size: .9rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--faint); font: 12px system-ui, sans-serif; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
figure { margin: 0; overflow-x: auto; } figure svg { min-width: 30rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { text-align: left; font-weight: 400; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--faint); font-size: .9rem; }
.number { text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }
code { font-size: .85em; overflow-wrap: anywhere; }
footer { padding-bottom: 2rem; }
.wide { overflow-x: auto; }
.alone { border-color: currentColor; font-weight: 600; }
@media (max-width: 34rem) { h1 { font-size: 1.4rem; } .tiles { grid-template-columns: 1fr 1fr; gap: .6rem; }
  .tiles > div { padding: .7rem .75rem; } .tiles dd:first-of-type { font-size: 1.2rem; }
  section { padding: .9rem 1rem; } }
"""
