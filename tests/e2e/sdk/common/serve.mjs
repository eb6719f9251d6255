// What both JavaScript servers share: the sessions of the legacy era, an event store in memory, the listening socket.

import { randomUUID } from 'node:crypto';
import http from 'node:http';

/** The store behind Last-Event-ID; one for each session. */
class MemoryEvents {
    #events = [];

    async storeEvent(streamId, message) {
        this.#events.push({ streamId, message });
        return `${streamId}_${this.#events.length}`;
    }

    async getStreamIdForEventId(eventId) {
        return this.#events[sequence(eventId) - 1]?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const seen = sequence(lastEventId);
        const streamId = this.#events[seen - 1]?.streamId;
        if (streamId === undefined) throw new Error(`unknown event id ${lastEventId}`);
        for (let index = seen; index < this.#events.length; index++) {
            const { streamId: owner, message } = this.#events[index];
            // A priming event carries no message and is never replayed.
            if (owner === streamId && Object.keys(message).length > 0) await send(`${owner}_${index + 1}`, message);
        }
        return streamId;
    }
}

const sequence = eventId => Number(eventId.slice(eventId.lastIndexOf('_') + 1));

/** Handles legacy requests: one transport a session, made by `initialize`, found by Mcp-Session-Id. */
export function legacySessions({ Transport, isInitialize, build, jsonAnswers }) {
    const sessions = new Map();

    async function open() {
        const transport = new Transport({
            sessionIdGenerator: randomUUID,
            enableJsonResponse: jsonAnswers,
            ...(jsonAnswers ? {} : { eventStore: new MemoryEvents(), retryInterval: 50 }),
            onsessioninitialized: id => sessions.set(id, transport)
        });
        transport.onclose = () => sessions.delete(transport.sessionId);
        await build().connect(transport);
        return transport;
    }

    return async (request, response, body) => {
        const id = request.headers['mcp-session-id'];
        let transport = sessions.get(id);
        if (id === undefined && request.method === 'POST' && isInitialize(body)) transport = await open();
        if (transport) return transport.handleRequest(request, response, body);
        const [status, code, message] = id === undefined ? [400, -32000, 'a session id is required'] : [404, -32001, 'no such session'];
        refuse(response, status, { code, message });
    };
}

function refuse(response, status, error) {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ jsonrpc: '2.0', error, id: null }));
}

/** Serves each path with its handler(request, response, parsed body) on a free port, printed as a line of JSON. */
export function serve(handlers) {
    const server = http.createServer(async (request, response) => {
        try {
            const handler = handlers[request.url];
            if (!handler) return refuse(response, 404, { code: -32601, message: 'no such path' });
            await handler(request, response, request.method === 'POST' ? await parsedBody(request) : undefined);
        } catch (error) {
            console.error(error);
            if (!response.headersSent) refuse(response, 500, { code: -32603, message: String(error) });
        }
    });
    // The default of 5 s would close idle connections in the middle of a run.
    server.keepAliveTimeout = 120_000;
    server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
}

async function parsedBody(request) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    return JSON.parse(Buffer.concat(chunks).toString());
}
