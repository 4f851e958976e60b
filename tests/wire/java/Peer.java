import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import java.util.jar.JarFile;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.requests.RequestHeader;

/**
 * Apache's side of the wire suite. Questions come on standard input, answers go to standard output, each with its
 * length in front. Question: a byte (what), then its arguments. Answer: a byte (0 fine, 1 error) and the content.
 */
public class Peer {
    /** Message classes by the schema's name: `ProduceRequest`, `OffsetCommitKey`. */
    static final Map<String, Class<?>> MESSAGES = new TreeMap<>();

    public static void main(String[] args) throws Exception {
        findMessages();
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
        while (true) {
            int length;
            try {
                length = in.readInt();
            } catch (EOFException end) {
                return;
            }
            byte[] question = new byte[length];
            in.readFully(question);
            byte[] answer;
            int status = 0;
            try {
                answer = answer(ByteBuffer.wrap(question));
            } catch (Throwable problem) {
                status = 1;
                StringBuilder text = new StringBuilder(problem.toString());
                for (int i = 0; i < Math.min(6, problem.getStackTrace().length); i++) {
                    text.append("\n  at ").append(problem.getStackTrace()[i]);
                }
                answer = text.toString().getBytes(StandardCharsets.UTF_8);
            }
            out.writeInt(answer.length + 1);
            out.writeByte(status);
            out.write(answer);
            out.flush();
        }
    }

    static byte[] answer(ByteBuffer question) throws Exception {
        switch (question.get()) {
            case 'l':
                return list().getBytes(StandardCharsets.UTF_8);
            case 'k':
                return keys().getBytes(StandardCharsets.UTF_8);
            case 'h':
                return header(question).getBytes(StandardCharsets.UTF_8);
            case 'r': { // read: name, version, bytes
                Message message = create(text(question));
                short version = question.getShort();
                ByteBufferAccessor readable = new ByteBufferAccessor(question.slice());
                message.read(readable, version);
                if (readable.remaining() != 0) {
                    throw new IllegalStateException(readable.remaining() + " bytes left");
                }
                return encode(message, version);
            }
            case 'm': { // make: name, version, seed
                Message message = create(text(question));
                short version = question.getShort();
                new Fill(question.getLong(), version).message(message);
                return encode(message, version);
            }
            default:
                throw new IllegalArgumentException("unknown question");
        }
    }

    /** The message's bytes and its fields as text. */
    static byte[] encode(Message message, short version) throws Exception {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        int size = message.size(cache, version);
        ByteBuffer bytes = ByteBuffer.allocate(size);
        message.write(new ByteBufferAccessor(bytes), cache, version);
        if (bytes.hasRemaining()) {
            throw new IllegalStateException("size says " + size + ", written " + bytes.position());
        }
        // Fields the version lacks are not on the wire: show what a reader gets.
        Message read = (Message) message.getClass().getDeclaredConstructor().newInstance();
        bytes.flip();
        read.read(new ByteBufferAccessor(bytes.duplicate()), version);
        byte[] shown = Show.message(read).getBytes(StandardCharsets.UTF_8);
        ByteBuffer answer = ByteBuffer.allocate(4 + size + shown.length);
        answer.putInt(size).put(bytes).put(shown);
        return answer.array();
    }

    static Message create(String name) throws Exception {
        Class<?> type = MESSAGES.get(name);
        if (type == null) {
            throw new IllegalArgumentException("Apache has no " + name);
        }
        return (Message) type.getDeclaredConstructor().newInstance();
    }

    /** Every message class of the jars, with its versions. */
    static String list() throws Exception {
        StringBuilder out = new StringBuilder();
        for (String name : MESSAGES.keySet()) {
            Message message = create(name);
            out.append(name).append(' ').append(message.lowestSupportedVersion()).append(' ')
                .append(message.highestSupportedVersion()).append('\n');
        }
        return out.toString();
    }

    /** Every API with its header versions: `key name version request-header response-header`. */
    static String keys() {
        StringBuilder out = new StringBuilder();
        for (ApiKeys key : ApiKeys.values()) {
            for (short v = key.oldestVersion(); v <= key.latestVersion(true); v++) {
                out.append(key.id).append(' ').append(key.name).append(' ').append(v).append(' ')
                    .append(key.requestHeaderVersion(v)).append(' ').append(key.responseHeaderVersion(v)).append(' ')
                    .append(key.isVersionEnabled(v, false)).append('\n');
            }
        }
        return out.toString();
    }

    /** What Apache reads from a request frame without its size. */
    static String header(ByteBuffer frame) {
        RequestHeader header = RequestHeader.parse(frame);
        return header.apiKey().id + " " + header.apiVersion() + " " + header.correlationId() + " " + header.clientId()
            + " " + frame.remaining();
    }

    static String text(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.getShort()];
        buffer.get(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static void findMessages() throws Exception {
        for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
            if (!entry.endsWith(".jar")) {
                continue;
            }
            try (JarFile jar = new JarFile(entry)) {
                for (var file : (Iterable<java.util.jar.JarEntry>) jar.stream()::iterator) {
                    String path = file.getName();
                    boolean place = path.contains("/generated/") || path.startsWith("org/apache/kafka/common/message/")
                        || path.startsWith("org/apache/kafka/common/metadata/");
                    if (!place || !path.endsWith(".class") || path.contains("$") || path.endsWith("JsonConverter.class")) {
                        continue;
                    }
                    Class<?> type = Class.forName(path.substring(0, path.length() - 6).replace('/', '.'), false,
                        Peer.class.getClassLoader());
                    if (Message.class.isAssignableFrom(type) && !type.isInterface()) {
                        String name = type.getSimpleName();
                        boolean rpc = name.endsWith("RequestData") || name.endsWith("ResponseData")
                            || name.endsWith("HeaderData");
                        MESSAGES.put(rpc ? name.substring(0, name.length() - 4) : name, type);
                    }
                }
            }
        }
    }
}
