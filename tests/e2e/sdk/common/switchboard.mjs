// The JavaScript side of the switchboard: record an event, wait for one, cut a connection.

import http from 'node:http';

const base = process.env.E2E_SWITCHBOARD;

export const record = (key, event) => ask('record', { key, event });

/** Throws if the event was not recorded `count` times within `seconds`; an abort ends the wait as well. */
export async function wait(key, event, { count = 1, seconds = 10, signal } = {}) {
    const { seen } = await ask('wait', { key, event, count, seconds }, signal);
    if (!seen) throw new Error(`"${event}" did not happen ${count} time(s) within ${seconds} s`);
}

/** Break the connection that carries the exchange `label`, as a failing network would. */
export async function cut(key, label) {
    const { cut } = await ask('cut', { key, label });
    if (!cut) throw new Error(`no open exchange "${label}" to cut`);
}

// Not by fetch: the SDKs use it, and its pool must see only their traffic.
function ask(verb, query, signal) {
    return new Promise((resolve, reject) => {
        const request = http.get(`${base}/${verb}?${new URLSearchParams(query)}`, { agent: false, signal }, response => {
            const chunks = [];
            response.on('data', chunk => chunks.push(chunk));
            response.on('end', () => resolve(JSON.parse(Buffer.concat(chunks).toString())));
            response.on('error', reject);
        });
        request.on('error', reject);
    });
}
