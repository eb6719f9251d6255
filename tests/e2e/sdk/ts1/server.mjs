// Server on @modelcontextprotocol/sdk 1.x: sessions, event store; SSE answers at /mcp, JSON answers at /json.

import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { CreateMessageResultSchema, ElicitResultSchema, isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';

import { register, text } from './fixtures.mjs';
import { legacySessions, serve } from './serve.mjs';

const sdk = {
    schema: shape => shape,
    resourceTemplate: uri => new ResourceTemplate(uri, { list: undefined }),
    call: extra => ({
        key: extra.requestInfo.headers['x-e2e-key'],
        id: extra.requestId,
        signal: extra.signal,
        header: name => extra.requestInfo.headers[name],
        progress: (progress, total, message) =>
            extra.sendNotification({
                method: 'notifications/progress',
                params: { progressToken: extra._meta.progressToken, progress, total, message }
            }),
        closeStream: () => extra.closeSSEStream()
    })
};

function build() {
    const server = new McpServer({ name: 'e2e-ts1', version: '1' });
    register(server, sdk, z, () => server.sendResourceListChanged());

    server.registerTool(
        'ask_model',
        { description: "Asks the client's model.", inputSchema: { prompt: z.string() } },
        async ({ prompt }, extra) => {
            const params = { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 50 };
            const answer = await extra.sendRequest({ method: 'sampling/createMessage', params }, CreateMessageResultSchema);
            return text(`model ${answer.model} said: ${answer.content.text}`);
        }
    );

    server.registerTool(
        'ask_user',
        { description: "Asks the client's user.", inputSchema: { question: z.string() } },
        async ({ question }, extra) => {
            const requestedSchema = { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] };
            const params = { mode: 'form', message: question, requestedSchema };
            const answer = await extra.sendRequest({ method: 'elicitation/create', params }, ElicitResultSchema);
            return text(`user said: ${answer.action}` + (answer.action === 'accept' ? ` ${answer.content.colour}` : ''));
        }
    );

    return server;
}

const legacy = jsonAnswers =>
    legacySessions({ Transport: StreamableHTTPServerTransport, isInitialize: isInitializeRequest, build, jsonAnswers });

serve({ '/mcp': legacy(false), '/json': legacy(true) });
