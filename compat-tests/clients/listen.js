// Listens to Marathon's events with marathon-event-bus-client: node listen.js OPTIONS, the client's options as JSON.
// Everything that the client tells is a line of JSON; a line on the standard input unsubscribes.
"use strict";

const MarathonEventBusClient = require("marathon-event-bus-client");

const options = JSON.parse(process.argv[2]);
const tell = (kind, name, data) => process.stdout.write(JSON.stringify({ kind, name, data }) + "\n");
options.handlers = {};
for (const type of options.handled || []) {
    options.handlers[type] = (name, data) => tell("handled", name, data);
}

// Of an event without a handler the client itself prints a line.
console.log = () => {};

const client = new MarathonEventBusClient(options);
for (const type of client.options.eventTypes) {
    client.on(type, (data) => tell("event", type, data));
}
for (const name of ["subscribed", "unsubscribed"]) {
    client.on(name, () => tell(name));
}
client.on("error", (told) => tell("error", undefined, told.error));
process.stdin.once("data", () => {
    client.unsubscribe();
    process.stdin.destroy();
});
client.subscribe();
