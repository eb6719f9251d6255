// Tools, resources and prompts that every JavaScript server offers; the Python twin is fixtures.py.
//
// `sdk` hides the differences between the SDK generations: schema(shape), resourceTemplate(text), and
// call(second argument of a handler) -> { key, id, signal, headers, progress(n, total, message), closeStream() }.

import * as switchboard from './switchboard.mjs';

const SEPARATORS = 'line\u2028paragraph\u2029next\u0085end \u{1f9ea}';
const SHOWN_HEADERS = ['accept', 'content-type', 'mcp-method', 'mcp-name', 'mcp-protocol-version', 'x-e2e-trace'];

export const text = value => ({ content: [{ type: 'text', text: value }] });

export function register(server, sdk, z, announce) {
    const tool = (name, description, shape, handler, extra = {}) =>
        server.registerTool(name, { description, inputSchema: sdk.schema(shape), ...extra }, (args, context) =>
            handler(args, sdk.call(context))
        );

    tool('echo', 'Gives back its argument.', { text: z.string() }, async args => text(args.text));

    tool(
        'add',
        'A sum, as structured content.',
        { a: z.number().int(), b: z.number().int() },
        async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { result: a + b } }),
        { outputSchema: sdk.schema({ result: z.number().int() }) }
    );

    tool('fail', 'Ends in a tool error.', {}, async () => {
        throw new Error('this tool always fails');
    });

    tool('big', 'A text of the given size in which every line differs.', { bytes: z.number().int() }, async args =>
        text(bigText(args.bytes))
    );

    tool(
        'steps',
        'Reports progress and goes on only after the client has recorded that it saw the report.',
        { count: z.number().int() },
        async ({ count }, call) => {
            for (let step = 1; step <= count; step++) {
                // Recorded first: once it is sent, the client may be quicker than we are.
                await switchboard.record(call.key, `sent ${step}`);
                await call.progress(step, count, `step ${step}`);
                await switchboard.wait(call.key, `got ${step}`, { seconds: 5 });
            }
            return text('all steps seen');
        }
    );

    tool('separators', 'Sends U+2028 and its relatives unescaped.', {}, async (_, call) => {
        await call.progress(1, 1, SEPARATORS);
        return text(SEPARATORS);
    });

    tool('hold', "Stays until cancelled or released; its progress message is the request's id.", {}, async (_, call) => {
        await call.progress(1, 2, String(call.id));
        try {
            await switchboard.wait(call.key, 'release', { seconds: 15, signal: call.signal });
        } catch (error) {
            if (call.signal.aborted) await switchboard.record(call.key, 'handler cancelled');
            throw error;
        }
        return text('released');
    });

    tool(
        'meet',
        'Returns when `count` calls are inside at once.',
        { count: z.number().int(), name: z.string() },
        async ({ count, name }, call) => {
            await switchboard.record(call.key, 'inside');
            await switchboard.wait(call.key, 'inside', { count });
            return text(`met ${name}`);
        }
    );

    tool(
        'interrupted',
        'Says something while its stream is broken: by itself (`close`) or by the network.',
        { close: z.boolean() },
        async ({ close }, call) => {
            await call.progress(1, 2, 'before');
            if (close) call.closeStream();
            else await switchboard.wait(call.key, 'backend gone POST tools/call');
            await call.progress(2, 2, 'missed');
            return text('finished');
        }
    );

    tool('announce', 'Sends resources/list_changed outside this request.', {}, async () => {
        await announce();
        return text('announced');
    });

    tool('headers', 'The request headers that reached the server.', {}, async (_, call) => {
        const seen = SHOWN_HEADERS.filter(name => call.header(name)).map(name => [name, call.header(name)]);
        return text(JSON.stringify(Object.fromEntries(seen)));
    });

    const plain = { mimeType: 'text/plain' };
    server.registerResource('note', 'e2e://note', plain, async uri => ({
        contents: [{ uri: uri.href, ...plain, text: 'a note\nof two lines' }]
    }));

    const binary = { mimeType: 'application/octet-stream' };
    server.registerResource('blob', 'e2e://blob', binary, async uri => ({
        contents: [{ uri: uri.href, ...binary, blob: Buffer.from(Array.from({ length: 256 }, (_, i) => i)).toString('base64') }]
    }));

    server.registerResource('item', sdk.resourceTemplate('e2e://item/{name}'), plain, async (uri, { name }) => ({
        contents: [{ uri: uri.href, ...plain, text: `item ${name}` }]
    }));

    server.registerPrompt(
        'greet',
        { description: 'A prompt with an argument.', argsSchema: sdk.schema({ name: z.string() }) },
        async ({ name }) => ({
            messages: [{ role: 'user', content: { type: 'text', text: `Say hello to ${name}.` } }]
        })
    );
}

function bigText(size) {
    const lines = [];
    for (let index = 0; index <= size / 29; index++) lines.push(`${String(index).padStart(8, '0')} the quick brown fox\n`);
    return lines.join('').slice(0, size);
}
