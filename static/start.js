// The start page: signs in through the demo's login, keeps the token in the cookie session, and shows the stream.
// It promises to show what came as text, never as markup, and to keep only the newest frames.

const FRAMES_MAX = 200;
const NAMED = ["ready", "snapshot", "reset", "live", "auth", "bye", "error"];

const status = document.querySelector("#status");
const frames = document.querySelector("#frames");
let source = null;

document.querySelector("#sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const user = new FormData(event.target).get("user");
  try {
    await signIn(user);
    open(user);
  } catch (error) {
    status.textContent = error.message;
  }
});

async function signIn(user) {
  const login = await post("/demo/login", { user });
  await post("/v1/session", undefined, login.token);
}

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: "POST", headers, body: body && JSON.stringify(body) });
  const reply = await response.json();
  if (!response.ok) throw new Error(reply.message);
  return reply;
}

function open(user) {
  source?.close();
  frames.replaceChildren();
  source = new EventSource("/v1/events?cursor=-20");
  source.onopen = () => (status.textContent = `connected as ${user}`);
  source.onerror = () => (status.textContent = source.readyState === EventSource.CLOSED ? "refused" : "reconnecting …");
  source.onmessage = (message) => show("event", message.data);
  for (const name of NAMED) {
    source.addEventListener(name, (message) => message.data && show(name, message.data));
  }
  const command = `tidings publish --url ${location.origin} --to ${user} --type note.new --data '{"text":"hello"}'`;
  document.querySelector("#command").textContent = command;
  document.querySelector("#try").hidden = false;
}

function show(name, data) {
  const item = document.createElement("li");
  const label = document.createElement("strong");
  label.textContent = name;
  const text = document.createElement("code");
  text.textContent = data;
  item.append(label, " ", text);
  frames.prepend(item);
  while (frames.children.length > FRAMES_MAX) frames.lastChild.remove();
}
