"""The look of the watch on a page, light and dark, wide and narrow: the colours of the figures."""

STYLE = """
.kv-watch { --ink: #1d2329; --paper: #fff; --edge: #8a929c; --read: #bfbfbf; --new: #055f36;
  --bad: #c23c0a; --old: #561168; --look: #1c6bba;
  color: var(--ink); background: var(--paper); border: 1px solid var(--edge);
  border-radius: 6px; padding: 10px; margin: 4px 0; font: 14px/1.4 system-ui, sans-serif;
  box-sizing: border-box; max-width: 56rem; min-width: 0; }
html[data-theme="dark"] .kv-watch, body[data-jp-theme-light="false"] .kv-watch { --ink: #e3e6ea;
  --paper: #14181e; --edge: #6b7480; --read: #6a6f76; --new: #4fbf8b; --bad: #ff8a5c;
  --old: #cf8be0; --look: #6fb3f2; }
.kv-watch * { box-sizing: border-box; }
.kv-watch p, .kv-watch pre { margin: 6px 0; color: inherit; background: none; padding: 0;
  font-size: inherit; line-height: inherit; max-width: none; }
.kv-watch pre { font: 12px/1.45 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; border: 0; }
.kv-watch summary { cursor: pointer; }
.kv-watch [hidden] { display: none; }
.kv-bar { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; }
.kv-bar label { display: flex; gap: 6px; align-items: center; }
.kv-bar button, .kv-bar select { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--edge); border-radius: 4px; padding: 2px 9px; max-width: 100%; }
.kv-bar button { min-width: 4.2em; }
.kv-watch :is(button, select, input, summary):focus-visible { outline: 3px solid var(--look);
  outline-offset: 1px; }
.kv-line { margin-top: 8px; }
.kv-line input { width: 100%; margin: 0; display: block; accent-color: var(--new); }
.kv-marks { display: flex; font-size: 12px; margin-top: 4px; }
.kv-marks span { flex: 2 2 0; text-align: center; min-width: 0; }
.kv-marks span:first-child { flex: 1 1 0; text-align: left; }
.kv-marks span:last-child { flex: 1 1 0; text-align: right; }
.kv-marks .now { font-weight: 700; text-decoration: underline; }
.kv-marks .wrong, .kv-watch .off { color: var(--bad); font-weight: 700; }
.kv-says { min-height: 2.9em; }
.kv-row { display: grid; grid-template-columns: 4.6em 8fr 9fr 6fr; column-gap: 10px;
  height: 16px; align-items: stretch; font-size: 12px; line-height: 16px; }
.kv-row > span { min-width: 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.kv-row .kv-word { text-align: right; }
.kv-row .new { font-weight: 700; }
.kv-row.kv-head { height: auto; font-weight: 700; }
.kv-row.kv-head > span { white-space: normal; }
.kv-row .kv-cells { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 1px 4px; }
.kv-cells > span { display: grid; grid-template-columns: 1fr 1fr; gap: 1px; }
.kv-cells > em { text-align: center; font-style: normal; white-space: nowrap; }
.kv-cells i { display: block; height: 14px; margin-top: 1px; font: 700 11px/14px system-ui;
  text-align: center; }
.kv-watch i.r { background: var(--read); }
.kv-watch i.w { background: var(--new); }
.kv-watch i.bad { color: #fff; background: var(--bad); }
html[data-theme="dark"] .kv-watch i.bad, body[data-jp-theme-light="false"] .kv-watch i.bad {
  color: #14181e; }
.kv-watch i.gone { border: 1.5px dashed var(--bad); color: var(--bad); line-height: 11px; }
.kv-watch i.x { border: 1px solid var(--old);
  background: repeating-linear-gradient(45deg, var(--old) 0 2px, var(--paper) 2px 4px); }
.kv-looks { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 6px; }
.kv-looks > span { display: flex; gap: 4px; min-width: 0; }
.kv-looks b { flex: none; width: 2.6em; font-weight: 400; text-align: right; }
.kv-looks u { flex: 1 1 0; position: relative; text-decoration: none; min-width: 0; }
.kv-looks u::before { content: ""; position: absolute; inset: 3px auto 3px 0; width: var(--w);
  background: var(--look); }
.kv-looks u.off::before { background: var(--bad); }
.kv-looks u.off::after { content: ""; position: absolute; inset: 1px auto 1px 0;
  width: var(--right); border: solid var(--ink); border-width: 0 2px 0 0; }
.kv-key { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; margin-top: 6px; }
.kv-key i { display: inline-block; width: 14px; height: 12px; margin-right: 5px;
  vertical-align: -1px; font: 700 11px/12px system-ui; text-align: center; }
.kv-out { display: grid; grid-template-columns: repeat(auto-fit, minmax(15em, 1fr)); gap: 4px 16px;
  margin-top: 8px; }
.kv-out strong { font-weight: 700; }
.kv-still { break-inside: avoid; margin-top: 12px; }
.kv-stills { display: none; }
@media (max-width: 599px) {
  .kv-watch { padding: 8px; }
  .kv-row { grid-template-columns: 4.8em 8fr 8fr 5fr; column-gap: 6px; font-size: 11px; }
  .kv-row .kv-cells { column-gap: 2px; }
  .kv-cells > em > span { display: none; }
}
@media print {
  .kv-live { display: none; }
  .kv-stills:not(:empty) { display: block; }
  .kv-watch:has(.kv-stills:not(:empty)) details { display: none; }
  .kv-watch i, .kv-looks u::before { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
