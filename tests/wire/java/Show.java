import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;

/** A message's fields as text, in the form of Rust's `{:?}`, so that both sides can be compared by name and value. */
final class Show {
    static String message(Message message) throws Exception {
        StringBuilder out = new StringBuilder();
        struct(message, out);
        return out.toString();
    }

    /** The fields that some living version of the message's table has, in its order. */
    static List<Field> fields(Class<?> type) throws Exception {
        Set<String> known = new HashSet<>();
        for (Schema schema : (Schema[]) type.getField("SCHEMAS").get(null)) {
            if (schema != null) {
                known.addAll(types(schema).keySet());
            }
        }
        boolean element = false;
        for (Class<?> i : type.getInterfaces()) {
            element |= i.getName().endsWith("$Element");
        }
        List<Field> fields = new ArrayList<>();
        for (Field field : type.getDeclaredFields()) {
            String name = field.getName();
            boolean link = element && (name.equals("prev") || name.equals("next"));
            if (!Modifier.isStatic(field.getModifiers()) && !link && known.contains(plain(name))) {
                field.setAccessible(true);
                fields.add(field);
            }
        }
        return fields;
    }

    /** A schema's fields, tagged ones included, by their plain names. */
    static Map<String, Type> types(Schema schema) {
        Map<String, Type> types = new HashMap<>();
        for (BoundField bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields) {
                for (var field : ((TaggedFields) bound.def.type).fields().values()) {
                    types.put(plain(field.name), field.type);
                }
            } else {
                types.put(plain(bound.def.name), bound.def.type);
            }
        }
        return types;
    }

    /** Schemas say `topic_id`, classes `topicId`. */
    static String plain(String name) {
        return name.replace("_", "").toLowerCase(Locale.ROOT);
    }

    private static void struct(Object message, StringBuilder out) throws Exception {
        out.append(message.getClass().getSimpleName().replaceFirst("(Request|Response)Data$", "$1"));
        String separator = " { ";
        for (Field field : fields(message.getClass())) {
            out.append(separator).append(plain(field.getName())).append(": ");
            value(field.get(message), out);
            separator = ", ";
        }
        if (separator.equals(", ")) {
            out.append(" }");
        }
    }

    private static void value(Object value, StringBuilder out) throws Exception {
        if (value == null) {
            out.append("None");
        } else if (value instanceof Message) {
            struct(value, out);
        } else if (value instanceof Collection) {
            out.append('[');
            String separator = "";
            for (Object item : (Collection<?>) value) {
                out.append(separator);
                value(item, out);
                separator = ", ";
            }
            out.append(']');
        } else if (value instanceof String) {
            out.append('"').append(value).append('"');
        } else if (value instanceof byte[]) {
            bytes(ByteBuffer.wrap((byte[]) value), out);
        } else if (value instanceof ByteBuffer) {
            bytes(((ByteBuffer) value).duplicate(), out);
        } else if (value instanceof MemoryRecords) {
            bytes(((MemoryRecords) value).buffer(), out);
        } else if (value instanceof Double) {
            String plain = new BigDecimal((Double) value).toPlainString();
            out.append(plain.contains(".") ? plain : plain + ".0");
        } else {
            out.append(value);
        }
    }

    private static void bytes(ByteBuffer bytes, StringBuilder out) {
        out.append("b\"");
        while (bytes.hasRemaining()) {
            int b = bytes.get() & 0xff;
            switch (b) {
                case '\n': out.append("\\n"); break;
                case '\r': out.append("\\r"); break;
                case '\t': out.append("\\t"); break;
                case '\\': out.append("\\\\"); break;
                case '"': out.append("\\\""); break;
                case 0: out.append("\\0"); break;
                default:
                    if (b >= 0x20 && b < 0x7f) {
                        out.append((char) b);
                    } else {
                        out.append(String.format("\\x%02x", b));
                    }
            }
        }
        out.append('"');
    }
}
