/**
 * The page's parts with made-up data, each under an address of its own:
 * `?view=call&tiles=9&screen=1&broken=1&clear=1&group=1&state=reconnecting`,
 * `?view=call&tiles=4&paused=1&frozen=1&withheld=1&limited=1&speaking=2`, `?view=start&production=1`,
 * `?view=prejoin`, `?view=error&code=room_full`, `?view=left`; all take `&theme=dark`.
 */
import { CallPage } from "../page/call.js";
import { errorPage, leftPage } from "../page/message-page.js";
import { prejoinPage } from "../page/prejoin.js";
import { startPage } from "../page/start.js";
import { ConnectionLostError, RelayError, generateLinkKey, isRelayErrorCode } from "../src/index.js";
import { FakeRoom, paintedTrack } from "./fake-room.js";

const query = new URLSearchParams(location.search);
const root = document.getElementById("app") ?? document.body;
const link = { room: "consult-1", key: generateLinkKey() };
const config = { development: !query.has("production"), version: "0.1.0", sealed: "required", groupKeys: false, issuer: undefined };
const nothing = (): void => undefined;

const theme = query.get("theme");
if (theme) document.documentElement.dataset["theme"] = theme;

switch (query.get("view")) {
  case "call":
    root.append(call().element);
    break;
  case "prejoin":
    root.append(prejoinPage(link, config, nothing).element);
    break;
  case "error": {
    const code = query.get("code");
    const error = isRelayErrorCode(code) ? new RelayError(code, "", false) : new ConnectionLostError("");
    root.append(errorPage(error, { retry: nothing, home: nothing }));
    break;
  }
  case "left":
    root.append(leftPage({ rejoin: nothing, home: nothing }));
    break;
  default:
    root.append(startPage(config, nothing));
}

function call(): CallPage {
  const room = new FakeRoom({
    others: Number(query.get("tiles") ?? 3) - 1,
    screen: query.has("screen"),
    broken: Number(query.get("broken") ?? 0),
    clear: Number(query.get("clear") ?? 0),
    state: query.get("state") ?? "connected",
    hasKey: !query.has("keyless"),
    paused: query.has("paused"),
    frozen: query.has("frozen"),
    withheld: query.has("withheld"),
    speaking: Number(query.get("speaking") ?? -1),
    limited: query.has("limited"),
    group: query.has("group"),
  });
  const page = new CallPage({
    room,
    link,
    name: "Dr. Haas",
    camera: paintedTrack(7),
    microphone: undefined,
    leave: nothing,
  });
  room.populate();
  if (query.has("group")) setTimeout(() => room.talk(), 500);
  return page;
}
