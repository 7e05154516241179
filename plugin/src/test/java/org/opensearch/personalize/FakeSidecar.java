package org.opensearch.personalize;

import java.io.BufferedInputStream;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.common.xcontent.json.JsonXContent;

/**
 * A sidecar on a real socket that does what the real one must not: stalls, breaks off, lies.
 *
 * <p>Each connection takes requests one after the other; {@link #behaviour} says what becomes of
 * them.
 */
final class FakeSidecar implements Closeable {

    /** What becomes of one request; returns whether the connection is kept. */
    interface Behaviour {
        boolean answer(Map<String, Object> request, OutputStream out) throws IOException;
    }

    final List<Map<String, Object>> requests = new CopyOnWriteArrayList<>();
    final List<String> heads = new CopyOnWriteArrayList<>();
    final AtomicInteger connections = new AtomicInteger();
    volatile Behaviour behaviour = reversing();

    private final ServerSocket server;
    private final Thread acceptor;
    private final ConcurrentLinkedQueue<Socket> sockets = new ConcurrentLinkedQueue<>();

    FakeSidecar() throws IOException {
        server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        acceptor = Thread.ofVirtual().start(this::accept);
    }

    URI endpoint() {
        return URI.create("http://127.0.0.1:" + server.getLocalPort());
    }

    /** Ranks the last hit first. */
    static Behaviour reversing() {
        return (request, out) -> {
            int hits = ((List<?>) request.get("hits")).size();
            String order = join(IntStream.range(0, hits).map(i -> hits - 1 - i));
            String explanations = IntStream.range(0, hits)
                .mapToObj(i -> "{\"score\":" + i + ".5,\"parts\":{\"engine\":" + i + ".5}}")
                .collect(Collectors.joining(",", "[", "]"));
            respond(
                out,
                200,
                "{\"applied\":true,\"reason\":null,\"state\":17,\"model\":\"m1\",\"order\":" + order
                    + (Boolean.TRUE.equals(request.get("explain"))
                        ? ",\"explanations\":" + explanations
                        : "")
                    + "}"
            );
            return true;
        };
    }

    static Behaviour saying(int status, String body) {
        return (request, out) -> {
            respond(out, status, body);
            return true;
        };
    }

    /** Writes these bytes and hangs up. */
    static Behaviour breakingOffAfter(String text) {
        return (request, out) -> {
            out.write(text.getBytes(StandardCharsets.UTF_8));
            out.flush();
            return false;
        };
    }

    static Behaviour stalling() {
        return (request, out) -> {
            try {
                Thread.sleep(30_000);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            return false;
        };
    }

    /** Answers, and closes the connection without having said so, as an idle server does. */
    static Behaviour closingSilently(Behaviour answer) {
        return (request, out) -> {
            answer.answer(request, out);
            return false;
        };
    }

    static void respond(OutputStream out, int status, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        String head = "HTTP/1.1 " + status + " Word\r\nContent-Type: application/json\r\n"
            + "Content-Length: " + bytes.length + "\r\n\r\n";
        out.write(head.getBytes(StandardCharsets.US_ASCII));
        out.write(bytes);
        out.flush();
    }

    /** Stops listening: when this returns, connections are refused. */
    @Override
    public void close() throws IOException {
        server.close(); // its socket stays open until the thread in accept has woken up
        try {
            acceptor.join();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        for (Socket socket : sockets) {
            socket.close();
        }
    }

    private void accept() {
        try {
            while (true) {
                Socket socket = server.accept();
                connections.incrementAndGet();
                sockets.add(socket);
                Thread.ofVirtual().start(() -> serve(socket));
            }
        } catch (IOException e) {
            // closed
        }
    }

    private void serve(Socket socket) {
        try (socket) {
            InputStream in = new BufferedInputStream(socket.getInputStream());
            boolean isKept = true;
            while (isKept) {
                byte[] body = body(in, heads);
                if (body == null) {
                    return;
                }
                Map<String, Object> request =
                    XContentHelper
                        .convertToMap(JsonXContent.jsonXContent, body, 0, body.length, true);
                requests.add(request);
                isKept = behaviour.answer(request, socket.getOutputStream());
            }
        } catch (IOException e) {
            // the client went away
        }
    }

    /** Reads one request, and keeps its head; null when the client hung up. */
    private static byte[] body(InputStream in, List<String> heads) throws IOException {
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            int next = in.read();
            if (next < 0) {
                return null;
            }
            head.append((char) next);
        }
        heads.add(head.toString());
        String length = head.toString().lines()
            .filter(line -> line.toLowerCase(Locale.ROOT).startsWith("content-length:"))
            .map(line -> line.substring(line.indexOf(':') + 1).strip())
            .findFirst()
            .orElse("0");
        return in.readNBytes(Integer.parseInt(length));
    }

    private static String join(IntStream numbers) {
        return numbers.mapToObj(Integer::toString).collect(Collectors.joining(",", "[", "]"));
    }
}
