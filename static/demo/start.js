// The demo's beginning: the sign-in page, or the application of the one who is signed in.
// Promises: one client at a time; signing out ends it, and a page that the browser kept or another person takes over starts anew.
import { createTidings } from '../tidings.js';
import { createApplication } from './application.js';
import { createToasts } from './toasts.js';
import { fromAddress, signedIn, signOut, tokenOf } from './session.js';
import { signInView } from './sign_in.js';

const toasts = createToasts();

function start() {
  const user = signedIn();
  if (user === null) return show(signInView({ done: start }));
  const tidings = createTidings({ user, token: () => tokenOf(user), persist: true });
  const application = createApplication({
    tidings,
    user,
    toasts,
    leave() {
      application.close();
      tidings.disconnect();
      signOut();
      location.hash = '';
      start();
    },
  });
  show(application.node);
  tidings.connect();
}

function show(node) {
  document.body.replaceChildren(node, ...toasts.nodes);
}

fromAddress();
start();
