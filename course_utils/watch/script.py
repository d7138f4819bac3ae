"""What moves the watch on a page: plain JavaScript, which asks for nothing from anywhere.

It shows the record of `page.py` call by call. Without it the page has the calls as text. One
output may be on a page several times: each script takes the first one that none has taken.
"""

SCRIPT = r"""
(function (data) {
  const root = document.querySelector('.kv-watch:not([data-live])');
  if (!root) return;
  root.dataset.live = '';
  const text = root.querySelector('details');
  text.open = false;
  text.insertAdjacentHTML('beforebegin', CONTROLS);
  root.querySelectorAll('button, select, input, summary').forEach((control) => {
    control.dataset.lmSuppressShortcuts = 'true';  // JupyterLab leaves the keys to it
  });
  const part = (name) => root.querySelector('.kv-' + name);
  const [back, step, play] = root.querySelectorAll('button');
  const [who, layer] = root.querySelectorAll('select');
  const slider = root.querySelector('input');
  const plain = data.records[0];
  let at = 0, timer = 0;
  const esc = (text) => text.replace(/[&<>"]/g, (c) => '&#' + c.charCodeAt(0) + ';');
  const LOOK = {w: ['w', ''], r: ['r', ''], '-': ['gone', '?'], x: ['x', ''],
    W: ['bad', 'w'], R: ['bad', 'r'], '.': ['', '']};
  const cell = (c) => `<i class="${LOOK[c][0]}">${LOOK[c][1]}</i>`;
  const cells = (call, row) => '<span class="kv-cells">' + call.cells.map((kv) =>
    `<span>${cell(kv[0][row] || '.')}${cell(kv[1][row] || '.')}</span>`).join('') + '</span>';
  const head = (call, word) => '<span class="kv-cells">' +
    call.cells.map((_, n) => `<em><span>${word}</span>${n + 1}</em>`).join('') + '</span>';
  const share = (seen) => seen ? (seen / 100).toFixed(2) : '';
  const out = (name, call) => `<p><strong>${name}</strong><br>comes out: ${esc(call.out)}<br>` +
    `operations: ${call.operations}, so far ${call.total}</p>`;

  function looks(seen, right, row, early) {
    return '<span class="kv-looks">' + seen.map((query, q) => {
      const now = query[row], then = row < early ? 0 : right[q][row - early];
      const off = Math.abs(now - then) > 1 ? ' class="off"' : '';
      const bar = `<u${off} style="--w:${now}%;--right:${then}%"></u>`;
      return `<span><b${off}>${share(now)}</b>${bar}</span>`;
    }).join('') + '</span>';
  }
  function panel(record, number) {
    const call = record.calls[number], beside = plain.calls[number], early = record.earlier;
    const seen = call.looks[layer.value], right = beside.looks[layer.value];
    const named = call.words.slice(-seen.length).map(esc);
    const rows = record.rows.map((word, row) => {
      const isNew = row >= early + call.start && row < early + call.end;
      return `<div class="kv-row"><span class="kv-word${isNew ? ' new' : ''}">${esc(word)}</span>` +
        cells(call, row) + looks(seen, right, row, early) +
        (row < early ? '<span></span>' : cells(beside, row - early)) + '</div>';
    });
    return '<div aria-hidden="true"><div class="kv-row kv-head"><span></span>' +
      '<span>with the cache: K and V</span><span class="kv-looks">' +
      named.map((word) => `<span>“${word}” looks at</span>`).join('') +
      '</span><span>without</span></div>' + rows.join('') +
      `<div class="kv-row"><span></span>${head(call, 'layer ')}<span></span>${head(beside, '')}` +
      '</div></div>' +
      `<div class="kv-out">${out('With the cache', call)}${out('Without a cache', beside)}</div>`;
  }
  function show() {
    const record = data.records[who.value], last = record.calls.length - 1;
    at = Math.max(0, Math.min(at, last));
    slider.max = last;
    slider.value = at;
    back.disabled = at === 0;
    step.disabled = at === last;
    slider.setAttribute('aria-valuetext', `call ${at + 1} of ${last + 1}`);
    part('marks').innerHTML = record.calls.map((call, n) => {
      const sign = n === record.first ? '✗ ' : '';
      const style = (n === at ? 'now ' : '') + (call.wrong ? 'wrong' : '');
      return `<span class="${style}">${sign}${esc(call.fed)}</span>`;
    }).join('');
    const says = record.calls[at].says.map((text, n) =>
      n ? `<span class="off">${esc(text)}</span>` : esc(text)).join(' ');
    part('says').innerHTML = `Call ${at + 1} of ${last + 1}. ${says}` +
      (at === last && record.ended ? ` <span class="off">Then: ${esc(record.ended)}</span>` : '');
    part('panel').innerHTML = panel(record, at);
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = 'Play';
  }
  function go(to) {
    at = to;
    show();
    if (step.disabled) stop();
  }
  back.onclick = () => { stop(); go(at - 1); };
  step.onclick = () => { stop(); go(at + 1); };
  play.onclick = () => {
    if (timer) return stop();
    if (step.disabled) go(0); else go(at + 1);
    if (step.disabled) return;
    timer = setInterval(() => go(at + 1), 1500);
    play.textContent = 'Pause';
  };
  slider.oninput = () => { stop(); go(+slider.value); };
  who.onchange = () => { stop(); show(); };
  layer.onchange = show;
  addEventListener('beforeprint', () => {
    const record = data.records[who.value];
    part('stills').innerHTML = record.calls.map((call, n) => '<div class="kv-still"><p>' +
      `${n + 1}. ${esc(call.says.join(' '))}</p>${panel(record, n)}</div>`).join('');
  });
  addEventListener('afterprint', () => { part('stills').innerHTML = ''; });
  who.parentNode.hidden = data.records.length === 2;
  show();
})(DATA);
"""
