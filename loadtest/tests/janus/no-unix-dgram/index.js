// Stands in for a native module of the WHEP server's, for a transport that is not used here: so that
// nothing needs to be compiled.
exports.createSocket = () => {
  throw new Error("Janus is spoken to by WebSocket here");
};
