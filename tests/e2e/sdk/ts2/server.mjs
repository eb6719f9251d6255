// Server on @modelcontextprotocol/server 2.x: both eras at one URL; SSE answers at /mcp, JSON answers at /json.

import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import {
    McpServer,
    ResourceTemplate,
    acceptedContent,
    createMcpHandler,
    createRequestStateCodec,
    inputRequired,
    inputResponse,
    isInitializeRequest,
    isLegacyRequest
} from '@modelcontextprotocol/server';
import * as z from 'zod';

import { register, text } from './fixtures.mjs';
import { legacySessions, serve } from './serve.mjs';
import * as switchboard from './switchboard.mjs';

const colourSchema = { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] };
const states = createRequestStateCodec({ key: new TextEncoder().encode('a fixed key, long enough for the tests') });

const sdk = {
    schema: shape => z.object(shape),
    resourceTemplate: uri => new ResourceTemplate(uri, { list: undefined }),
    call: ctx => ({
        key: ctx.http.req.headers.get('x-e2e-key'),
        id: ctx.mcpReq.id,
        signal: ctx.mcpReq.signal,
        header: name => ctx.http.req.headers.get(name),
        progress: (progress, total, message) =>
            ctx.mcpReq.notify({
                method: 'notifications/progress',
                params: { progressToken: ctx.mcpReq._meta.progressToken, progress, total, message }
            }),
        closeStream: () => ctx.http.closeSSE()
    })
};

/** This SDK puts its questions to a legacy client on the standalone stream, and they are lost if it is not open yet. */
const standaloneStream = ctx => switchboard.wait(sdk.call(ctx).key, 'backend open GET');

/** `announceModern` publishes to the listen streams; a legacy session has a stream of its own. */
function build(announceModern) {
    const server = new McpServer({ name: 'e2e-ts2', version: '1' }, { requestState: { verify: states.verify } });
    register(server, sdk, z, () => (announceModern ? announceModern() : server.sendResourceListChanged()));

    server.registerTool(
        'ask_model',
        { description: "Asks the client's model, in the way of the era.", inputSchema: z.object({ prompt: z.string() }) },
        async ({ prompt }, ctx) => {
            const params = { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 50 };
            let answer;
            if (announceModern) {
                const view = inputResponse(ctx.mcpReq.inputResponses, 'model');
                if (view.kind === 'missing') return inputRequired({ inputRequests: { model: inputRequired.createMessage(params) } });
                answer = view.result;
            } else {
                await standaloneStream(ctx);
                answer = await ctx.mcpReq.requestSampling(params);
            }
            return text(`model ${answer.model} said: ${answer.content.text}`);
        }
    );

    server.registerTool(
        'ask_user',
        { description: "Asks the client's user, in the way of the era.", inputSchema: z.object({ question: z.string() }) },
        async ({ question }, ctx) => {
            const params = { mode: 'form', message: question, requestedSchema: colourSchema };
            let answer;
            if (announceModern) {
                answer = inputResponse(ctx.mcpReq.inputResponses, 'user');
                if (answer.kind === 'missing') return inputRequired({ inputRequests: { user: inputRequired.elicit(params) } });
            } else {
                await standaloneStream(ctx);
                answer = await ctx.mcpReq.elicitInput(params);
            }
            return text(`user said: ${answer.action}` + (answer.action === 'accept' ? ` ${answer.content.colour}` : ''));
        }
    );

    server.registerTool(
        'two_rounds',
        { description: 'Two questions one after the other; the first answer travels in requestState.', inputSchema: z.object({}) },
        async (_, ctx) => {
            const ask = (name, requestState) =>
                inputRequired({
                    inputRequests: {
                        [name]: inputRequired.elicit({ message: `${name} colour?`, requestedSchema: colourSchema })
                    },
                    ...(requestState && { requestState })
                });
            const first = acceptedContent(ctx.mcpReq.inputResponses, 'first');
            const second = acceptedContent(ctx.mcpReq.inputResponses, 'second');
            if (second) return text(`${ctx.mcpReq.requestState().first} and ${second.colour}`);
            return first ? ask('second', await states.mint({ first: first.colour })) : ask('first');
        }
    );

    server.registerTool(
        'mirrored',
        {
            description: 'Its argument is mirrored into a header; gives back both.',
            inputSchema: z.object({ region: z.string().meta({ 'x-mcp-header': 'Region' }) })
        },
        async ({ region }, ctx) =>
            text(JSON.stringify({ argument: region, header: ctx.http.req.headers.get('mcp-param-region') }))
    );

    return server;
}

function bothEras(jsonAnswers) {
    const modern = createMcpHandler(() => build(() => modern.notify.resourcesChanged()), {
        responseMode: jsonAnswers ? 'json' : 'auto'
    });
    const modernHandler = toNodeHandler(modern);
    const legacyHandler = legacySessions({
        Transport: NodeStreamableHTTPServerTransport,
        isInitialize: isInitializeRequest,
        build: () => build(),
        jsonAnswers
    });
    return async (request, response, body) => {
        const legacy = request.method !== 'POST' || (await isLegacyRequest(await toWebRequest(request, body)));
        await (legacy ? legacyHandler : modernHandler)(request, response, body);
    };
}

serve({ '/mcp': bothEras(false), '/json': bothEras(true) });
