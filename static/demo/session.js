// Who is signed in, in this tab: the demo believes everyone.
// Promises: only the name is kept, for this tab alone, so that two tabs can be two people; a token is asked for when the
// client needs one and is never stored.

const KEY = 'tidings.demo.user';

export const signedIn = () => sessionStorage.getItem(KEY);
export const signOut = () => sessionStorage.removeItem(KEY);

/** A name in the address (`/?as=bob`) signs in, and then leaves the address. */
export function fromAddress() {
  const user = new URLSearchParams(location.search).get('as');
  if (user === null) return;
  sessionStorage.setItem(KEY, user);
  history.replaceState(null, '', location.pathname + location.hash);
}

/** A token for 12 hours. Rejects with the server's own words. */
export async function tokenOf(user) {
  const { token } = await call('/demo/login', { user });
  return token;
}

export async function signIn(user) {
  await tokenOf(user);
  sessionStorage.setItem(KEY, user);
}

/** Something that an application's own backend would do: a post, a notification, a changed order. */
export const act = (kind, fields) => call('/demo/act', { kind, ...fields });

async function call(path, body) {
  const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  const reply = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(reply.message ?? `the server answered ${answer.status}`);
  return reply;
}
