"""The page of `dailies label --captions`: one clip at a time, two texts; nothing comes from outside."""

from orchestration.label_page import PLAYER, STYLE

_SCRIPT = """
let item = null, shown = 0, busy = false;
function show(next) {
  item = next.item; shown = 0;
  at('done').value = next.done; at('done').max = Math.max(next.all, 1);
  at('count').textContent = next.done + ' of ' + next.all + ' clips captioned';
  at('work').hidden = !item; at('end').hidden = !!item; at('trouble').textContent = '';
  if (!item) return;
  at('about').textContent = 'clip ' + item.clip_id.slice(0, 8) + ', ' + item.about +
    (item.short || item.dense ? '; what stands below is a draft of the captioner' : '');
  at('short').value = item.short; at('dense').value = item.dense;
  const strip = at('strip'); strip.replaceChildren();
  for (let k = 0; k < item.frames; k++) {
    const picture = new Image(); picture.src = '/frame/' + item.clip_id + '/' + k + '.jpg'; strip.append(picture);
  }
  at('film').hidden = !item.frames; at('short').focus(); step();
}
async function say(path) {
  if (busy || (!item && path !== '/api/undo')) return;
  busy = true;
  try {
    show(await call(path, path === '/api/caption' ?
      {clip_id: item.clip_id, short: at('short').value, dense: at('dense').value} :
      path === '/api/pass' ? {clip_id: item.clip_id} : {}));
  } catch (e) { at('trouble').textContent = e.message; }
  busy = false;
}
document.addEventListener('keydown', e => {
  if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); say('/api/caption'); }
});
for (const b of document.querySelectorAll('button')) b.addEventListener('click', () => say(b.dataset.path));
setInterval(step, 280);
call('/api/next').then(show, e => { at('trouble').textContent = e.message; });
"""

_BODY = """
<h1>What is to be seen?</h1><p id="about" class="soft"></p>
<div id="work" hidden><img id="film" alt="the clip, frame by frame"><div id="strip"></div>
<p><label>short: one sentence on the main subject<br><textarea id="short" rows="2"></textarea></label></p>
<p><label>dense: everything that is seen, in sentences<br><textarea id="dense" rows="5"></textarea></label></p><p>
<button data-path="/api/caption">save <kbd>ctrl enter</kbd></button><button data-path="/api/pass">pass</button>
<button data-path="/api/undo">undo</button></p></div>
<div id="end" hidden><p>Every clip is done. <code>dailies captioner train --labels</code> learns from them.</p>
<button data-path="/api/undo">undo</button></div>
<p id="trouble"></p><progress id="done" value="0" max="1"></progress><p class="soft" id="count"></p>
"""


def page(token: str, nonce: str) -> str:
    """The whole page; token and nonce are URL-safe text of our own making."""
    style = f"{STYLE} textarea {{ font: inherit; width: 100%; }}"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>dailies label --captions</title>"
        f"<meta name='token' content='{token}'><style nonce='{nonce}'>{style}</style></head>"
        f"<body>{_BODY}<script nonce='{nonce}'>{PLAYER}{_SCRIPT}</script></body></html>"
    )
