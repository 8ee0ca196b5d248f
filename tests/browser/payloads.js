// Texts that a careless page would run: markup, attributes, addresses, templates, and characters that confuse.
// Promises: each sets `window.__pwned` (or opens a dialog) where it is taken for anything but text; at least 100.

const RUN = 'window.__pwned=1';
const EVENTS = ['onerror', 'onload', 'onfocus', 'onclick', 'onmouseover', 'ontoggle', 'onanimationstart', 'onpointerenter', 'onbegin', 'onpageshow'];
const SCHEMES = ['javascript:', 'JaVaScRiPt:', ' javascript:', 'java\tscript:', 'java\nscript:', 'javascript://%0a', 'data:text/html,<script>', 'vbscript:', '\u0001javascript:', 'view-source:javascript:'];

const MARKUP = [
  `<script>${RUN}</script>`, `<ScRiPt>${RUN}</sCrIpT>`, `<script src="data:text/javascript,${RUN}"></script>`, `<script type=module>${RUN}</script>`,
  `"><script>${RUN}</script>`, `'><script>${RUN}</script>`, `</textarea><script>${RUN}</script>`, `</title><script>${RUN}</script>`, `</style><script>${RUN}</script>`,
  `--><script>${RUN}</script>`, `]]><script>${RUN}</script>`, `<<script>${RUN}//<</script>`, `<script/x>${RUN}</script/x>`, `<scr<script>ipt>${RUN}</scr</script>ipt>`,
  `<img src=x onerror=${RUN}>`, `<img src=x onerror="${RUN}">`, `<img/src=x/onerror=${RUN}>`, `<img src=x:x onerror=${RUN}//`, `"><img src=x onerror=${RUN}>`, `<IMG """><SCRIPT>${RUN}</SCRIPT>">`,
  `<svg onload=${RUN}>`, `<svg/onload=${RUN}>`, `<svg><script>${RUN}</script></svg>`, `<svg><animate onbegin=${RUN} attributeName=x dur=1s>`, `<svg><a xlink:href="javascript:${RUN}"><text y=20>x</text></a></svg>`,
  `<math><mtext><table><mglyph><style><img src=x onerror=${RUN}>`, `<math href="javascript:${RUN}">x</math>`, `<body onload=${RUN}>`, `<body onpageshow=${RUN}>`, `<iframe src="javascript:${RUN}">`,
  `<iframe srcdoc="<script>parent.__pwned=1</script>">`, `<object data="javascript:${RUN}">`, `<embed src="javascript:${RUN}">`, `<base href="javascript:${RUN}//">`, `<link rel=stylesheet href="data:text/css,*{}" onload=${RUN}>`,
  `<meta http-equiv=refresh content="0;url=javascript:${RUN}">`, `<form action="javascript:${RUN}"><button>go</button></form>`, `<button formaction="javascript:${RUN}">x</button>`, `<input autofocus onfocus=${RUN}>`, `<select autofocus onfocus=${RUN}>`,
  `<textarea autofocus onfocus=${RUN}>`, `<details open ontoggle=${RUN}>`, `<video><source onerror=${RUN}>`, `<video src=x onerror=${RUN}>`, `<audio src=x onerror=${RUN}>`, `<marquee onstart=${RUN}>x</marquee>`,
  `<style>@keyframes x{}</style><p style="animation-name:x" onanimationstart=${RUN}>`, `<div style="background:url(javascript:${RUN})">`, `<a href="javascript:${RUN}">x</a>`, `[x](javascript:${RUN})`, `![x](x"onerror="${RUN})`,
  `<x contenteditable onblur=${RUN}>x</x>`, `<template><script>${RUN}</script></template>`, `<noscript><p title="</noscript><img src=x onerror=${RUN}>">`, `<xss id=x tabindex=1 onfocus=${RUN}></xss>`, `<portal src="javascript:${RUN}">`,
  `{{constructor.constructor('${RUN}')()}}`, `\${${RUN}}`, `#{${RUN}}`, `<%= ${RUN} %>`, `{{= ${RUN} }}`, `';${RUN};//`, `";${RUN};//`, `\\";${RUN};//`, `\`;${RUN};//`, `&lt;script&gt;${RUN}&lt;/script&gt;`, `&#60;img src=x onerror=${RUN}&#62;`,
  `\u003cscript\u003e${RUN}\u003c/script\u003e`, `%3Cscript%3E${RUN}%3C/script%3E`, `+ADw-script+AD4-${RUN}+ADw-/script+AD4-`, `＜script＞${RUN}＜/script＞`, `<img src="x\`\`><script>${RUN}</script>"\`\`>`,
  'data: {"type":"sys.reset"}\n\nevent: reset', 'id: q-1\ndata: x', '\u202etxt.exe', 'Z̸̢͑a̷̡͝l̶̨̛g̵̡̊o̴̧͗'.repeat(6), '\u200b\u200d\ufeff', '__proto__', 'constructor', 'toString', '[object Object]', 'null', 'undefined', 'NaN', '👩‍👩‍👧‍👦'.repeat(10), '\u2028\u2029', 'ﷺ'.repeat(40), 'W'.repeat(120),
];

export const LINKS = SCHEMES.map((scheme) => `${scheme}${RUN}`);
export const TEXTS = [...MARKUP, ...EVENTS.map((event) => `<p id=x tabindex=1 ${event}=${RUN}>x`), ...EVENTS.map((event) => `" autofocus ${event}=${RUN} x="`), ...LINKS];
